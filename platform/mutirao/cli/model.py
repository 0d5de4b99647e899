"""`mutirao model`: look at training batches, write text, take the model elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from mutirao.cli.common import global_options, print_result, settings


@click.group()
def model() -> None:
    """Peek at batches, sample, export."""


@model.command()
@click.argument("run")
@click.option("--step", required=True, type=click.IntRange(min=1), help="Step, from 1.")
@click.option("--limit", default=2, show_default=True, help="How many sequences.")
@global_options
def peek(run: str, step: int, limit: int) -> None:
    """The batch of a training step, without training: the same for any number
    of workers, before and after any restart."""
    from mutirao.core.model_size import resolve
    from train_jobs.loader import peek as peek_batch
    from train_jobs.sample import load_tokenizer

    found, stages = _stages(run, "pack", "tokenizer")
    recipe = found.recipe()
    context = resolve(recipe.model, stages["pack"].content["info"]["vocab_size"]).context
    rows = peek_batch(stages["pack"], recipe, step, context, found.directory)
    tokenizer = load_tokenizer(stages["tokenizer"].directory)
    for row in rows:
        row["text"] = tokenizer.decode(row["tokens"])
    lines = [f"Step {step}: {len(rows)} sequences of {context} tokens"]
    for row in rows[:limit]:
        where = f"{row['stream']}, sequence {row['sequence']:,} (epoch {row['epoch']})"
        lines.append(f"  {where}:")
        lines.append(f"    {' '.join(row['text'].split())[:74]}")
    print_result(rows, lines)


@model.command()
@click.argument("run")
@click.option("--prompt", default="", help="Text to continue.")
@click.option("--tokens", default=60, show_default=True, help="How many tokens to write.")
@click.option("--temperature", default=0.8, show_default=True)
@click.option("--seed", default=0, show_default=True)
@global_options
def sample(run: str, prompt: str, tokens: int, temperature: float, seed: int) -> None:
    """Let the model of RUN continue a text."""
    from train_jobs.sample import sample as continue_text

    _, stages = _stages(run, "export")
    directory = stages["export"].directory
    text = continue_text(
        directory, directory, prompt, tokens=tokens, temperature=temperature, seed=seed
    )
    print_result({"prompt": prompt, "continuation": text}, [prompt + text])


@model.command()
@click.argument("run")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A new folder.")
@global_options
def export(run: str, output: Path) -> None:
    """Copy the Hugging Face folder of RUN to OUTPUT."""
    import shutil

    from mutirao.core.errors import RecipeError

    _, stages = _stages(run, "export")
    if output.exists() and any(output.iterdir() if output.is_dir() else [output]):
        raise RecipeError("There is something already", str(output), code="exists")
    output.mkdir(parents=True, exist_ok=True)
    for part in stages["export"].parts:
        shutil.copyfile(stages["export"].directory / part.path, output / part.path)
    names = [part.path for part in stages["export"].parts]
    print_result(
        {"output": str(output), "files": names}, [f"Wrote {len(names)} files to {output}."]
    )


def _stages(run: str, *needed: str):
    """The run and its results; a stage that has not finished is said."""
    from mutirao.core.errors import RecipeError
    from mutirao.core.runs import find_run
    from mutirao.run.show import manifests

    found = find_run(settings().workdir, run)
    stages = manifests(settings().workdir, found)
    for name in needed:
        if name not in stages:
            raise RecipeError(
                f"Run {found.id} has not finished its stage {name!r}",
                hint=f"mutirao runs resume {found.id}",
                code="not-done",
            )
    return found, stages
