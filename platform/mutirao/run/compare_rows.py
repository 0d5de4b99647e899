"""What one run has to show beside others: its size, losses, bits per byte, speed and energy.

In: a run, finished or not. Out: a `Row` of plain values. Where another run did the training, its
metrics are read there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutirao.core.errors import DataError
from mutirao.core.files import read_json
from mutirao.core.manifest import Manifest
from mutirao.core.metrics import read_metrics, step_losses
from mutirao.core.model_size import load_preset, parameter_count, resolve
from mutirao.core.recipe import Recipe
from mutirao.core.runs import Run
from mutirao.core.workdir import Workdir
from mutirao.run.heldout_text import HeldOut, heldout_of
from mutirao.run.show import energy_totals, evaluation, manifests, status_word

MOST_GAP = 1 / 10  # of a run's time without a meter, before the comparison says so

Points = tuple[tuple[int, float], ...]  # (tokens, value)


@dataclass(frozen=True)
class Row:
    """One run. None: not known (yet). Losses in nats per token, times in seconds."""

    id: str
    status: str
    reason: str
    parameters: int | None
    tokens: int  # trained on so far
    planned_tokens: int
    losses: Points = field(repr=False)  # one a step
    heldout: Points = field(repr=False)  # bits per byte while training, of the first sequences
    bits_per_byte: float | None  # of all held-out text, at the end
    tokens_per_s: float | None  # median of the log's lines
    skipped_steps: int
    rollbacks: int
    train_j: float | None
    energy_j: float | None  # all stages, all attempts
    measured_share: float | None
    train_wall_s: float | None
    wall_s: float | None
    notes: tuple[str, ...] = ()
    heldout_text: HeldOut | None = field(default=None, repr=False)
    loss_kind: tuple[str, str] | None = None  # (tokenizer's hash, train.loss_on)


def look_at(workdir: Workdir, run: Run) -> Row:
    """What one run has to show."""
    done, recipe = manifests(workdir, run), run.recipe()
    result, train = evaluation(done), _info(done, "train")
    source, note = _training_of(workdir, run, done)
    losses = _losses(source, done, recipe)
    logged = read_metrics(source)
    rates = sorted(row["tokens_per_s"] for row in logged if row.get("tokens_per_s"))
    energy, problem = _energy(run)
    tokenizer = _ids_hash(done["tokenizer"]) if "tokenizer" in done else ""
    return Row(
        id=run.id,
        status=status_word(run),
        reason=run.record["reason"],
        parameters=train.get("parameters") or _parameters(done, recipe),
        tokens=losses[-1][0] if losses else 0,
        planned_tokens=recipe.train.tokens,
        losses=losses,
        heldout=_heldout_bits(source, done, recipe),
        bits_per_byte=result.get("bits_per_byte"),
        tokens_per_s=rates[len(rates) // 2] if rates else None,
        skipped_steps=logged[-1].get("skipped", 0) if logged else 0,
        rollbacks=_rollbacks(source),
        train_j=energy.get("stages", {}).get("train", {}).get("energy_j"),
        energy_j=energy.get("energy_j"),
        measured_share=energy.get("measured_share"),
        train_wall_s=energy.get("stages", {}).get("train", {}).get("wall_s"),
        wall_s=run.record.get("wall_s"),
        notes=tuple(f"{run.id}: {one}" for one in (note, problem) if one),
        heldout_text=heldout_of(done),
        loss_kind=(tokenizer, recipe.train.loss_on) if losses else None,
    )


def _ids_hash(tokenizer: Manifest) -> str:
    """Of the file that turns text into ids; the settings beside it (templates, names of roles)
    change no id."""
    files = {part.path: part.sha256 for part in tokenizer.parts}
    return files.get("tokenizer.json") or tokenizer.content_hash


def _training_of(workdir: Workdir, run: Run, done: dict[str, Manifest]) -> tuple[Path, str]:
    """The folder with the metrics of the run's training, and a note where another run made it."""
    maker = done["train"].provenance.get("run", run.id) if "train" in done else run.id
    if maker == run.id or read_metrics(run.directory):
        return run.directory, ""
    return workdir.run(maker), f"its training is that of {maker}, and so is the energy it took"


def _losses(source: Path, done: dict[str, Manifest], recipe: Recipe) -> Points:
    """(tokens, loss) of each step; of the finished stage where the metrics are gone."""
    losses = step_losses(source)
    if not losses and "train" in done:
        lines = (done["train"].directory / "losses.jsonl").read_text(encoding="utf-8")
        losses = {row["step"]: row["loss"] for row in map(json.loads, lines.splitlines())}
    return tuple((_tokens(step, recipe), v) for step, v in losses.items() if v is not None)


def _tokens(step: int, recipe: Recipe) -> int:
    """That the first `step` steps read."""
    from train_jobs.schedule import total_sequences

    context = recipe.model.context or load_preset(recipe.model.preset)["context"]
    total = total_sequences(recipe.train, context)
    return min(step * recipe.train.global_batch, total) * context


def _heldout_bits(source: Path, done: dict[str, Manifest], recipe: Recipe) -> Points:
    found: list[tuple[int, float]] = []
    if recipe.train.loss_on == "answers":
        return ()  # their loss is no measure of the text
    for row in read_metrics(source, "heldout"):
        bits = row.get("bits_per_byte") or _bits_of_loss(row.get("loss"), done)
        if bits is not None:
            found.append((_tokens(row["step"], recipe), bits))
    return tuple(found)


def _bits_of_loss(loss: float | None, done: dict[str, Manifest]) -> float | None:
    """By the bytes per token of the whole held-out side, as the stage evaluate does the reverse."""
    from train_jobs.evaluate import bits_to_loss

    if loss is None or "pack" not in done:
        return None
    return loss / bits_to_loss(1.0, done["pack"])


def _rollbacks(source: Path) -> int:
    from train_jobs.skips import NAME

    path = source / NAME
    return len(read_json(path)["rollbacks"]) if path.exists() else 0


def _parameters(done: dict[str, Manifest], recipe: Recipe) -> int | None:
    """Of a model that is not trained to its end: known with the vocabulary."""
    vocabulary = _info(done, "tokenizer").get("vocab_size")
    return parameter_count(resolve(recipe.model, vocabulary)) if vocabulary else None


def _energy(run: Run) -> tuple[dict[str, Any], str]:
    """The run's totals, and what is wrong with them; a damaged ledger costs only the energy."""
    try:
        found = energy_totals(run)
    except DataError as error:
        return {}, f"its energy cannot be read: {error.problem}"
    gap_s, wall_s = found.get("gap_s", 0.0), found.get("wall_s", 0.0)
    if gap_s > wall_s * MOST_GAP:
        return found, f"no meter ran for {gap_s:,.1f} of its {wall_s:,.1f} s"
    return found, ""


def _info(done: dict[str, Manifest], stage: str) -> dict[str, Any]:
    return done[stage].content["info"] if stage in done else {}
