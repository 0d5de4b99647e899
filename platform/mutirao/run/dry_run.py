"""`mutirao run --dry-run`: what would run and why, the model's size, memory per worker.

Works without the data being there: then the stages are listed, not compared with the store.
"""

from __future__ import annotations

from typing import Any

from mutirao.core.errors import DataError, EnvironmentProblem, RecipeError
from mutirao.core.manifest import Manifest
from mutirao.core.model_size import resolve
from mutirao.core.recipe_file import LoadedRecipe
from mutirao.core.run_steps import find_origin, streams_read
from mutirao.core.runs import load_run, nearest_relative
from mutirao.core.workdir import Workdir
from mutirao.run.assets import named_run
from mutirao.run.check import check_recipe
from mutirao.run.plan import Step, make_plan
from mutirao.run.sources import fingerprints, remember_hashes
from train_jobs.launch import dry_run as training_needs


def dry_run(loaded: LoadedRecipe, workdir: Workdir) -> tuple[dict[str, Any], list[str]]:
    """The plan as JSON and as lines of at most 79 columns."""
    recipe = loaded.recipe
    problem = ""
    remember_hashes(workdir.cache)
    check_recipe(recipe, loaded.base)
    try:
        sources = fingerprints(recipe, loaded.base, workdir.cache)
    except (RecipeError, EnvironmentProblem) as error:
        sources, problem = None, str(error).split("\n")[0]
    identifier = named_run(recipe, loaded.base, workdir, sources) if sources else None
    directory = workdir.run(identifier) if identifier else None
    run = load_run(directory) if directory and (directory / "run.json").exists() else None
    kin = nearest_relative(workdir, recipe, identifier or "")
    steps = make_plan(recipe, workdir, sources, loaded.base, run, kin[0] if kin else None)
    model = _model(loaded, steps)
    value = {
        "run": identifier or f"{recipe.name}-?",
        "sources_problem": problem,
        "differs_from": {"run": kin[0].id, "fields": kin[1]} if kin and run is None else None,
        "stages": [{"stage": s.stage.name, "state": s.state, "why": s.why} for s in steps],
        **model,
        **_mix(loaded, steps, workdir),
    }
    return value, _lines(value)


def _model(loaded: LoadedRecipe, steps: list) -> dict[str, Any]:
    """Size and memory; the vocabulary is the trained tokenizer's where there is one."""
    recipe = loaded.recipe
    vocab = recipe.tokenizer.vocab_size
    for step in steps:
        if step.stage.name == "tokenizer" and step.manifest is not None:
            vocab = step.manifest.content["info"]["vocab_size"]
    needed = training_needs(recipe, vocab)
    return {
        "model": {"preset": recipe.model.preset, **needed["shape"]},
        "parameters": needed["parameters"],
        "flops": needed["flops"],
        "tokens": recipe.train.tokens,
        "steps": needed["steps"],
        "workers": recipe.train.workers,
        "memory_per_worker_bytes": needed["memory_per_worker"],
    }


def _mix(loaded: LoadedRecipe, steps: list[Step], workdir: Workdir) -> dict[str, Any]:
    """What training reads of each token stream, once these are packed; else nothing is known."""
    from train_jobs.loader import plan_mix

    packed = next((step.manifest for step in steps if step.stage.name == "pack"), None)
    if packed is None:
        return {"mix": None, "mix_problem": ""}
    context = resolve(loaded.recipe.model, packed.content["info"]["vocab_size"]).context
    try:
        read = _read_before(loaded, packed, context, workdir)
        return {"mix": plan_mix(packed, loaded.recipe, context, read).record(), "mix_problem": ""}
    except (RecipeError, DataError) as error:
        return {"mix": None, "mix_problem": str(error)}


def _read_before(
    loaded: LoadedRecipe, packed: Manifest, context: int, workdir: Workdir
) -> list[int] | None:
    """Sequences of each stream that the origin of the run has read; None without one."""
    if not loaded.recipe.train.from_:
        return None
    folder = find_origin(loaded.recipe.train.from_, loaded.base, workdir).folder
    return streams_read(folder, loaded.recipe, packed.content_hash, context)


def _mix_lines(mix: dict[str, Any]) -> list[str]:
    heads = f"{'tokens':>13}{'weight':>7}{'read':>13}{'epochs':>9}{'share':>8}"
    lines = [f"{'Mix of token streams':<26}{heads}"]
    for row in mix["streams"]:
        read = row["sequences"] * mix["context"]
        lines.append(
            f"  {row['name'][:24]:<24}{row['tokens']:>13,}{row['weight']:>7g}{read:>13,}"
            f"{row['epochs']:>9.2f}{row['share']:>8.1%}"
        )
    return lines


def _lines(value: dict[str, Any]) -> list[str]:
    lines = [f"Run {value['run']}"]
    if value["sources_problem"]:
        lines.append(f"  {value['sources_problem']}")
    if value["differs_from"]:
        fields = "; ".join(value["differs_from"]["fields"][:3]) or "the content of the sources"
        lines.append(f"  differs from {value['differs_from']['run']} in {fields}")
    lines += [
        f"  {row['stage']:<14}{row['state']:<8}{row['why'][:55]}".rstrip()
        for row in value["stages"]
    ]
    model, memory = value["model"], value["memory_per_worker_bytes"]
    lines.append(
        f"Model {model['preset']}: {value['parameters']:,} parameters; {model['layers']} layers of "
        f"{model['hidden_size']},"
    )
    lines.append(f"  context {model['context']:,}, vocabulary {model['vocab_size']:,}")
    lines.append(
        f"Training: {value['tokens']:,} tokens in {value['steps']:,} steps, "
        f"{value['flops']:.2e} FLOP"
    )
    rows = ", ".join(f"{k} {v / 2**20:,.0f}" for k, v in memory.items() if k != "total")
    lines.append(
        f"Memory for each of {value['workers']} workers, estimated: "
        f"{memory['total'] / 2**20:,.0f} MiB"
    )
    lines.append(f"  ({rows})")
    lines += value["mix_problem"].split("\n") if value["mix_problem"] else []
    return lines + (_mix_lines(value["mix"]) if value["mix"] else [])
