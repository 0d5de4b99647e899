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
@click.argument("run", metavar="RUN[@STEP]")
@click.option("--prompt", default="", help="Text to continue.")
@click.option("--chat", is_flag=True, help="The prompt is a question: answer it.")
@click.option("--tokens", default=60, show_default=True, help="How many tokens to write.")
@click.option("--temperature", default=0.8, show_default=True)
@click.option("--seed", default=0, show_default=True)
@global_options
def sample(run: str, prompt: str, chat: bool, tokens: int, temperature: float, seed: int) -> None:
    """Let the model of RUN continue a text; with @STEP, or while the run goes
    on, as the checkpoint has it."""
    from train_jobs.sample import chat_ids, generate, load_model, load_tokenizer, text_ids

    found, stages, saved = _model(run)
    tokenizer = load_tokenizer(stages["tokenizer"].directory)
    ids, end = chat_ids(tokenizer, prompt) if chat else (text_ids(tokenizer, prompt), None)
    if saved is None:
        network = load_model(stages["train"].directory)
    else:
        from train_jobs.export import of_checkpoint
        from train_jobs.sample import checkpoint_model

        shape = of_checkpoint(saved, found.recipe()).shape
        network = checkpoint_model(saved, shape)
    text = generate(network, tokenizer, ids, tokens, temperature, seed, end)
    value = {"prompt": prompt, "step": saved.step if saved else None, "continuation": text}
    print_result(value, [text if chat else prompt + text])


@model.command()
@click.argument("run", metavar="RUN[@STEP]")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option(
    "--dtype", type=click.Choice(["fp32", "bf16"]), help="Default: export.dtype of the recipe."
)
@global_options
def export(run: str, output: Path, dtype: str | None) -> None:
    """Write the Hugging Face folder of RUN to OUTPUT; with @STEP, or while the
    run goes on, of a checkpoint."""
    from mutirao.core.errors import RecipeError
    from mutirao.core.files import make_output_folder
    from train_jobs.export import export_run, of_checkpoint, of_result

    found, stages, saved = _model(run)
    if output.exists() and any(output.iterdir() if output.is_dir() else [output]):
        raise RecipeError("There is something already", str(output), code="exists")
    make_output_folder(output)
    recipe, tokenizer = found.recipe(), stages["tokenizer"]
    if saved is None:
        weights, evaluated = of_result(stages["train"]), stages.get("evaluate")
    else:
        weights, evaluated = of_checkpoint(saved, recipe), None
    names = export_run(weights, tokenizer, recipe, output, dtype or recipe.export.dtype, evaluated)
    value = {"output": str(output), "step": weights.steps, "files": names}
    lines = [f"Wrote {len(names)} files to {output}: the model of step {weights.steps:,}."]
    print_result(value, lines)


def _model(word: str):
    """(run, its results, the checkpoint that RUN@STEP names): no checkpoint where RUN alone stands
    and its training has ended."""
    from mutirao.core.run_steps import find_checkpoint, split_word

    name, step = split_word(word)
    found, stages = _stages(name, "tokenizer")
    if step is None and "train" in stages:
        return found, stages, None
    from train_jobs.checkpoint import hold

    return found, stages, hold(find_checkpoint(settings().workdir, word)[1])


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
