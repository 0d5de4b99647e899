"""Going back: what a rollback writes down, what it leaves out, and where the next attempt begins.

In: a `RollBack`, raised by every rank at the same step. Out: `runs/<id>/guard.json` (skips.py reads
it), and no checkpoint left that has learned from what is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutirao.core import recipe
from mutirao.core.errors import UserError
from mutirao.core.files import write_json
from train_jobs import ranks
from train_jobs.checkpoint import Checkpoint, readable
from train_jobs.skips import FORMAT, NAME, SkipList, rollbacks


class RollBack(Exception):
    """Start again from the last checkpoint; raised by every rank at the same step.

    cause: bad-steps (then `left_out` are positions of the run to leave out from now on),
    compute-fault or memory-fault of the machine."""

    def __init__(self, cause: str, step: int, detail: str, left_out: list[list[int]] | None = None):
        self.cause, self.step, self.detail, self.left_out = cause, step, detail, left_out or []
        super().__init__(f"{cause} at step {step}: {detail}")

    @classmethod
    def of_ranks(cls, cause: str, step: int, here: bool) -> RollBack:
        """Names the ranks where it was; a collective."""
        found = [rank for rank, bad in enumerate(ranks.gather(here)) if bad]
        return cls(cause, step, f"rank {', '.join(map(str, found))}")


def note_rollback(
    run_dir: Path, cause: RollBack, settings: recipe.Guard, global_batch: int
) -> dict[str, Any]:
    """Write it down before the next attempt, and return what was written; a collective.

    Bad steps leave out their own sequences and those of as many steps before: the step that did the
    harm looked good (PaLM, arXiv 2204.02311, section 5.1, goes back 100 steps and leaves out 200 to
    500 batches). Met again at once, it reaches further back. Raises UserError on every rank after
    `max_rollbacks` for such a reason (code not-finite for bad steps), or if it cannot be written.
    """
    told: dict[str, Any] | UserError | None = None
    if ranks.rank() == 0:
        try:
            told = _write(run_dir, cause, settings, global_batch)
        except UserError as error:
            told = error
    told = ranks.broadcast(told)
    if isinstance(told, UserError):
        raise told
    assert told is not None
    return told


def _write(
    run_dir: Path, cause: RollBack, settings: recipe.Guard, global_batch: int
) -> dict[str, Any]:
    before = rollbacks(run_dir)
    data = cause.cause == "bad-steps"
    if sum((one["cause"] == "bad-steps") == data for one in before) >= settings.max_rollbacks:
        raise _met_again(cause, settings)
    left_out = cause.left_out
    if data:
        reach = settings.rollback_after * global_batch
        left_out = [_before(run_dir, left_out[0][0], reach), *left_out]
    one = {"cause": cause.cause, "step": cause.step, "detail": cause.detail, "left_out": left_out}
    write_json(run_dir / NAME, {"format": FORMAT, "rollbacks": [*before, one]})
    return one


def _before(run_dir: Path, position: int, reach: int) -> list[int]:
    """The `reach` positions before this one that are not left out already, as one range.

    Checkpoints that have learned from them are undone, so the same is left out wherever they stand.
    Where no sound one is old enough, the oldest stays and the range begins there."""
    end = position
    for start, stop in reversed(SkipList(run_dir).ranges):
        if start < end <= stop:
            end = start
    start = max(0, end - reach)
    sound = [one for one in readable(run_dir) if not one.problems()]
    oldest = min(map(_sequences, sound), default=0) if start else 0  # 0: the seed
    for one in sound:
        if _sequences(one) > max(start, oldest):
            (one.folder / "manifest.json").unlink()
    return [max(start, min(oldest, end)), position]


def _sequences(saved: Checkpoint) -> int:
    return int(saved.state["cursor"]["sequences"])


def _met_again(cause: RollBack, settings: recipe.Guard) -> UserError:
    more = f"--set train.guard.max_rollbacks={2 * settings.max_rollbacks + 1} lets it go on."
    if cause.cause == "bad-steps":
        hint = (
            "The last checkpoint is sound. In another run, lower train.lr or lengthen "
            "train.warmup_steps; if the data changes for good there, raise "
            f"train.guard.spike_sigma. In this one, {more}"
        )
    else:
        hint = f"Have that machine's memory and cards tested, run without it; then {more}"
    return UserError(
        f"Training went back {settings.max_rollbacks} times and met it again: {cause}",
        f"step {cause.step}",
        hint,
        "not-finite" if cause.cause == "bad-steps" else cause.cause,
    )
