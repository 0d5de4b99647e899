"""Leases: one writer at a time, real processes, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

from mutirao.core.lease import STALE_S, Lease


def holder(path, body: str = "print('held', flush=True); time.sleep(60)"):
    """A process that holds the lease."""
    program = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from mutirao.core.lease import Lease
        with Lease(Path({str(path)!r}), "other run").hold():
            {body}
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "held"
    return process


def test_a_held_lease_is_not_given_and_says_who_holds_it(tmp_path):
    path = tmp_path / "lease.json"
    process = holder(path)
    try:
        lease = Lease(path, "me")
        assert not lease.try_acquire()
        assert "other run" in lease.describe() and str(process.pid) in lease.describe()
    finally:
        process.kill()
        process.wait()


def test_the_lease_of_a_killed_process_is_taken_over(tmp_path):
    path = tmp_path / "lease.json"
    process = holder(path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    waits = []
    with Lease(path, "me").hold(on_wait=waits.append):
        assert json.loads(path.read_text())["owner"] == "me"
    assert not path.exists()


def test_a_waiter_gets_the_lease_when_it_is_given_back(tmp_path):
    path = tmp_path / "lease.json"
    process = holder(path, "print('held', flush=True); time.sleep(1)")
    waits = []
    with Lease(path, "me").hold(on_wait=waits.append, poll_s=0.05):
        pass
    assert len(waits) == 1
    assert process.wait() == 0


def test_of_many_waiters_only_one_holds_at_a_time(tmp_path):
    path, log = tmp_path / "lease.json", tmp_path / "log"
    body = textwrap.dedent(f"""
        import os, time
        from pathlib import Path
        from mutirao.core.lease import Lease
        for _ in range(5):
            with Lease(Path({str(path)!r})).hold(poll_s=0.01):
                with open({str(log)!r}, "a") as f:
                    f.write("in\\n"); f.flush(); time.sleep(0.01); f.write("out\\n")
    """)
    processes = [subprocess.Popen([sys.executable, "-c", body]) for _ in range(4)]
    assert [p.wait() for p in processes] == [0] * 4
    assert log.read_text().split() == ["in", "out"] * 20


def test_a_lease_of_another_machine_is_taken_over_only_when_it_is_stale(tmp_path):
    path = tmp_path / "lease.json"
    record = {"boot_id": "elsewhere", "pid": 1, "token": "t", "renewed": time.time()}
    path.write_text(json.dumps(record))
    assert not Lease(path).try_acquire()
    path.write_text(json.dumps({**record, "renewed": time.time() - STALE_S - 1}))
    assert Lease(path).try_acquire()
