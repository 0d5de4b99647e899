"""The plan of a run: for each stage its key, whether its result is in the store, and why not.

Pure thinking: reads manifests and records, starts nothing. `mutirao run` follows it stage by stage,
`--dry-run` prints it. A stage's key is the hash of: the content hashes of its inputs, its identity
config without defaults, its `output_version`, and the sha256 of every asset it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutirao.core.files import canonical_json, sha256_hex
from mutirao.core.identity import differences, section_identity
from mutirao.core.manifest import Manifest, read_manifest
from mutirao.core.recipe import Recipe
from mutirao.core.runs import Run
from mutirao.core.stages import DATA_STAGES, STAGES, Stage
from mutirao.core.workdir import Workdir
from mutirao.run.assets import assets_of, evaluation_sets

KEY_DIGITS = 20
NEVER_RAN = "has not run"


@dataclass(frozen=True)
class Step:
    """One stage of the plan. key and directory are None while an input is not there yet."""

    stage: Stage
    state: str  # done | to do | waits
    why: str
    key: str | None = None
    key_parts: dict[str, Any] | None = None
    directory: Path | None = None
    manifest: Manifest | None = None


# Stages that read text: a recipe of token files alone has none.
TEXT_STAGES = frozenset(DATA_STAGES[: DATA_STAGES.index("tokenizer")])


def stages_of(recipe: Recipe, base: Path) -> list[Stage]:
    """The stages of this recipe: decontaminate only where there is something to compare, and none
    that reads text where all is tokenised already."""
    skipped: set[str] = set()
    if not recipe.sources:
        skipped |= TEXT_STAGES
    if not evaluation_sets(recipe, base):
        skipped.add("decontaminate")
    return [stage for stage in STAGES if stage.name not in skipped]


def make_step(
    stage: Stage,
    recipe: Recipe,
    workdir: Workdir,
    done: dict[str, Manifest],
    sources: list[dict[str, Any]] | None,
    base: Path,
    earlier: dict[str, dict[str, Any]],
    only: tuple[str, ...] = (),
) -> Step:
    """Decide about one stage. `done`: manifests of the stages before it, `sources`: fingerprints of
    the source files (None: not there), `earlier`: stage entries of this run or of its kin, `only`:
    the stages that take part at all (empty: those of the recipe)."""
    names = {s.name for s in stages_of(recipe, base) if not only or s.name in only}
    missing = [name for name in stage.inputs if name in names and name not in done]
    if missing:
        return Step(stage, "waits", f"after {missing[0]}")
    if stage.name == "ingest" and sources is None:
        return Step(stage, "to do", "the sources are not here")
    parts = key_parts(stage, recipe, done, sources, base, workdir)
    key = sha256_hex(canonical_json(parts))[:KEY_DIGITS]
    directory = workdir.artefact(stage.name, key)
    manifest = read_manifest(directory)
    if manifest is not None:
        return Step(stage, "done", "", key, parts, directory, manifest)
    why = _why(stage, key, parts, directory, earlier.get(stage.name))
    return Step(stage, "to do", why, key, parts, directory)


def key_parts(
    stage: Stage,
    recipe: Recipe,
    done: dict[str, Manifest],
    sources: list[dict[str, Any]] | None,
    base: Path,
    workdir: Workdir | None = None,
) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        name: done[name].content_hash for name in stage.inputs if name in done
    }
    if stage.name == "ingest":
        hashed = ("source", "file", "format", "bytes", "sha256")
        texts = [entry for entry in sources or [] if not entry.get("tokenized")]
        inputs = {"files": [{k: entry[k] for k in hashed} for entry in texts]}
    return {
        "stage": stage.name,
        "output_version": stage.output_version,
        "inputs": inputs,
        "config": section_identity(recipe, stage.sections),
        "assets": assets_of(stage.name, recipe, base, workdir),
    }


def make_plan(
    recipe: Recipe,
    workdir: Workdir,
    sources: list[dict[str, Any]] | None,
    base: Path,
    run: Run | None = None,
    kin: Run | None = None,
) -> list[Step]:
    """The whole plan as things stand now."""
    done: dict[str, Manifest] = {}
    earlier = {**(kin.stages if kin else {}), **(run.stages if run else {})}
    steps = []
    for stage in stages_of(recipe, base):
        step = make_step(stage, recipe, workdir, done, sources, base, earlier)
        if step.manifest is not None:
            done[stage.name] = step.manifest
        steps.append(step)
    return steps


def _why(
    stage: Stage, key: str, parts: dict[str, Any], directory: Path, entry: dict[str, Any] | None
) -> str:
    if entry is None or not entry.get("key_parts"):
        started = directory.is_dir() and any(directory.glob("*.part.json"))
        return "begun, goes on where it stopped" if started else NEVER_RAN
    if entry["key"] == key:
        started = directory.is_dir() and any(directory.glob("*.part.json"))
        if entry.get("status") == "done":
            return "its result is no longer in the store"
        return "begun, goes on where it stopped" if started else "begun"
    changed = differences(_flat(entry["key_parts"]), _flat(parts))
    return "; ".join(changed[:2]) + (f" and {len(changed) - 2} more" if len(changed) > 2 else "")


def _flat(parts: dict[str, Any]) -> dict[str, Any]:
    """Key parts for comparison: config at the top, hashes of inputs as one word each."""
    inputs = {f"input {name}": _word(value) for name, value in parts["inputs"].items()}
    assets = {f"asset {name}": value[:8] for name, value in parts["assets"].items()}
    config = parts["config"]
    return {**config, **inputs, **assets, "output_version": parts["output_version"]}


def _word(value: Any) -> str:
    return value[:8] if isinstance(value, str) else sha256_hex(canonical_json(value))[:8]
