"""Signs of life of the ranks: their files, and who of them stands still. No torch.

In and out: `ranks/rank-00000.json`, one `Sign` each. `standing_still` is the judgement alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FOLDER = "ranks"
FORMAT = 1
WAITING = "waiting for all ranks"


@dataclass(frozen=True)
class Sign:
    rank: int
    host: str = ""
    pid: int = 0
    started: float = 0.0  # unix time at which the process began
    step: int = 0
    what: str = "never started"
    inside: str = ""  # innermost Python frame of the loop
    waits: bool = False  # for the others: inside a collective
    idle_s: float = 0.0  # since the loop last moved
    patience_s: float = 0.0  # how long it may stay where it is
    time: float = 0.0  # unix; only compared with its own earlier value, clocks of hosts differ
    silent: bool = False  # set by who judges: no new sign

    def text(self) -> str:
        """One clause that names it."""
        where = f"rank {self.rank} (pid {self.pid} on {self.host})"
        if self.silent:
            return f"{where} gives no sign of life; its last: step {self.step:,}, {self.what}"
        place = f", in {self.inside}" if self.inside else ""
        return f"{where} stands for {self.idle_s:,.0f} s at step {self.step:,}, {self.what}{place}"


def standing_still(signs: list[Sign], silent: set[int]) -> list[Sign]:
    """Who holds up all others: the silent ones; else those least far, where they have been there
    for longer than they may.

    A rank that waits in a collective is further than one that computes in the same step. Where all
    are equally far, nobody can be told apart, and all are named.
    """
    gone = [Sign(**{**asdict(sign), "silent": True}) for sign in signs if sign.rank in silent]
    if gone or not signs:
        return gone
    least = min((sign.step, sign.waits) for sign in signs)
    last = [sign for sign in signs if (sign.step, sign.waits) == least]
    return last if all(sign.idle_s >= sign.patience_s for sign in last) else []


def sign_path(run_dir: Path, rank: int) -> Path:
    return run_dir / FOLDER / f"rank-{rank:05d}.json"


def write_sign(run_dir: Path, sign: Sign) -> None:
    """Atomic but not durable: after a crash of the machine nobody needs it. A full disk is left to
    what has something to lose."""
    path = sign_path(run_dir, sign.rank)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"format": FORMAT, **asdict(sign)}), encoding="utf-8")
        os.replace(temporary, path)


def read_signs(run_dir: Path, world: int) -> list[Sign]:
    """Of every rank; one without a readable file counts as never started."""
    return [_read(sign_path(run_dir, rank), rank) for rank in range(world)]


def _read(path: Path, rank: int) -> Sign:
    try:
        record = json.loads(path.read_bytes())
        known = {field.name for field in fields(Sign)}
        return Sign(**{name: value for name, value in record.items() if name in known})
    except (OSError, ValueError, TypeError):
        return Sign(rank)
