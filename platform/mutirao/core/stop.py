"""Asking a run to stop: one small file in its folder, seen by whoever works there.

Signals do not reach workers on other machines (nor threads), a file in the run's folder does. The
training loop looks once a step, finishes the step, writes a checkpoint and ends with `Stopped`.
"""

from __future__ import annotations

from pathlib import Path

from mutirao.core.files import read_json, write_json

NAME = "stop.json"


def request_stop(run_dir: Path, reason: str) -> None:
    """reason: one clause for the record, such as 'SIGTERM' or 'energy budget of 2 kWh used'."""
    write_json(run_dir / NAME, {"format": 1, "reason": reason})


def stop_reason(run_dir: Path) -> str:
    """Why the run should stop, '' if nobody asked."""
    path = run_dir / NAME
    if not path.exists():
        return ""
    return str(read_json(path).get("reason", "")) or "asked to stop"


def clear_stop(run_dir: Path) -> None:
    (run_dir / NAME).unlink(missing_ok=True)
