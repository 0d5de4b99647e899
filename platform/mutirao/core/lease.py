"""One writer per key: a lease file that names its owner, is renewed, and can be taken over.

A second run of the same key waits and says for whom. The lease is taken over when its owner's
process is gone (same boot of the same host) or when it was not renewed for `STALE_S` seconds.
Taking and taking over happen under an flock, so two waiters never both win on one file system.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mutirao.core.files import write_json

RENEW_S = 5.0
STALE_S = 60.0


def boot_id() -> str:
    """Identifies this boot of this machine; the host name where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> str:
    """When a process started, in the kernel's words ('' if it is gone): pids are reused."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def process_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Lease:
    """The right to write one directory. Use as: `with Lease(path).hold(on_wait=print): ...`."""

    def __init__(self, path: Path, owner: str = ""):
        self.path = path
        self.token = uuid.uuid4().hex
        self.record = {
            "format": 1,
            "owner": owner,
            "token": self.token,
            "host": socket.gethostname(),
            "boot_id": boot_id(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
        }
        self._stop = threading.Event()

    @contextmanager
    def hold(
        self, on_wait: Callable[[str], None] | None = None, poll_s: float = 0.5
    ) -> Iterator[Lease]:
        """Wait for the lease, renew it in the background, give it back at the end."""
        said = False
        while not self.try_acquire():
            if on_wait and not said:
                on_wait(self.describe())
                said = True
            time.sleep(poll_s)
        thread = threading.Thread(target=self._renew, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()
            self.release()

    def try_acquire(self) -> bool:
        with self._locked():
            holder = self._read()
            if holder is not None and not self._gone(holder):
                return False
            write_json(self.path, {**self.record, "renewed": time.time()})
            return True

    def held_by_another(self) -> bool:
        """Whether somebody who is alive holds it; takes nothing."""
        holder = self._read()
        if holder is None or holder.get("token") == self.token:
            return False
        return not self._gone(holder)

    def release(self) -> None:
        with self._locked():
            holder = self._read()
            if holder and holder.get("token") == self.token:
                self.path.unlink(missing_ok=True)

    def describe(self) -> str:
        holder = self._read() or {}
        owner = holder.get("owner") or "another run"
        return f"{owner} (pid {holder.get('pid')} on {holder.get('host')})"

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            with self._locked():
                holder = self._read()
                if holder and holder.get("token") == self.token:
                    write_json(self.path, {**self.record, "renewed": time.time()})

    def _read(self) -> dict | None:
        try:
            return json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None

    def _gone(self, holder: dict) -> bool:
        pid = int(holder.get("pid", -1))
        if holder.get("boot_id") == self.record["boot_id"]:
            if not process_alive(pid):
                return True
            started = holder.get("started")
            return bool(started) and started != process_start(pid)
        return time.time() - float(holder.get("renewed", 0)) > STALE_S

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_name(self.path.name + ".lock"), "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
