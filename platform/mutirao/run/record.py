"""A run's record kept true while the run goes on, and what stands in its folder at the end.

`run.json` says running, then done, stopped, interrupted or failed with the reason, and what each
stage became; at the end `model/` and `report.html` are made from whatever is there.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mutirao.core.errors import Stopped, UserError
from mutirao.core.manifest import Manifest
from mutirao.core.runs import Run
from mutirao.run.plan import Step

if TYPE_CHECKING:
    from mutirao.run.execute import Execution


def write_report_of(run: Run, state: Execution) -> None:
    """The report of whatever there is; a problem in it never hides how the run ended."""
    from mutirao.report.page import write_report

    try:
        write_report(run.directory, state.done, state.loaded.recipe)
    except Exception as error:
        state.progress.say(f"  the report could not be written: {error!r}")


def link_model(export: Manifest, target: Path) -> None:
    """`runs/<id>/model`: the Hugging Face folder, hard links into the store where possible."""
    temporary = target.with_name(".model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for part in export.parts:
        source = export.directory / part.path
        try:
            os.link(source, temporary / part.path)
        except OSError:
            shutil.copyfile(source, temporary / part.path)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


# What a training leaves in the run's folder and reads again when it continues.
TRAINED = ("checkpoints", "metrics", "ray_train", "ranks", "profile", "tensorboard")
NOTED = ("guard.json", "origin.json", "micro_batch.json", "mix.json")


def forget_training(directory: Path) -> None:
    """For --new: nothing of an earlier training is left, its skip list neither."""
    for name in TRAINED:
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in NOTED:
        (directory / name).unlink(missing_ok=True)


@contextmanager
def recorded(run: Run, state: Execution) -> Iterator[None]:
    """Keep run.json true: running, then done, stopped, interrupted or failed with the reason."""
    began = time.time()
    run.record["attempts"] += 1
    _status(run, "running", "")
    run.record["process"] = {"pid": os.getpid(), "host": socket.gethostname()}
    if state.options.new:
        forget_training(run.directory)
    run.save()
    try:
        yield
    except Stopped as stop:
        _status(run, "stopped", stop.problem)
        raise
    except KeyboardInterrupt:
        _status(run, "interrupted", "Ctrl-C")
        raise
    except BaseException as error:
        _status(run, "failed", error.problem if isinstance(error, UserError) else repr(error))
        state.progress.log(traceback.format_exc())
        raise
    else:
        if "export" in state.done:
            link_model(state.done["export"], run.directory / "model")
        _status(run, "done" if state.options.until is None else "partial", "")
    finally:
        run.record["wall_s"] = round(run.record.get("wall_s", 0) + time.time() - began, 1)
        run.save()
        if state.options.report:
            write_report_of(run, state)


def _status(run: Run, status: str, reason: str) -> None:
    run.record["status"], run.record["reason"] = status, reason


def note(run: Run, step: Step, manifest: Manifest | None) -> None:
    entry = {"key": step.key, "key_parts": step.key_parts, "status": "running"}
    if manifest is not None:
        entry |= {"status": "done", "content_hash": manifest.content_hash}
    run.stages[step.stage.name] = entry
    run.save()
