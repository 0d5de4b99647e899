"""`--sweep KEY=V1,V2`: a run for each value, or for each combination where there are several keys.

In: a recipe and the sweeps. Out: a finished (or failed) run for each `Trial`, one after another in
this workdir, so that all stages before the first swept field run once and are reused by their keys;
then one comparison, the best first. A trial is a run like any other: its id follows from its
recipe, so the same command again goes on, a longer list of values adds runs, and
`mutirao run --set KEY=V1` finds the trial's run.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import yaml

from mutirao.core.errors import RecipeError, Stopped, UserError
from mutirao.core.progress import Progress
from mutirao.core.recipe_file import LoadedRecipe, load_recipe
from mutirao.core.runs import RECORD, load_run
from mutirao.core.workdir import Workdir
from mutirao.run.assets import named_run
from mutirao.run.check import check_recipe
from mutirao.run.compare import Comparison, best_first, compare
from mutirao.run.execute import Options, check_stage_names, execute
from mutirao.run.session import prepare_for, ray_session
from mutirao.run.sources import fingerprints, remember_hashes

Fingerprints = list[dict[str, Any]]


@dataclass(frozen=True)
class Trial:
    """One combination of values; a recipe that was read and checked."""

    values: dict[str, Any]
    loaded: LoadedRecipe

    def __str__(self) -> str:
        return ", ".join(f"{key}={_written(value)}" for key, value in self.values.items())


@dataclass(frozen=True)
class Ended:
    """A trial's run and, where it failed, why."""

    trial: Trial
    id: str
    problem: str = ""

    def record(self) -> dict[str, Any]:
        return {"run": self.id, "values": self.trial.values, "problem": self.problem}


def read_trials(recipe: str, overrides: tuple[str, ...], sweeps: tuple[str, ...]) -> list[Trial]:
    """All combinations, the last key changing fastest. Raises RecipeError for a wrong key or value
    as `--set` does, and for a key that is given twice."""
    keys = [text.partition("=")[0].strip() for text in sweeps]
    set_keys = {text.partition("=")[0].strip() for text in overrides}
    for number, key in enumerate(keys):
        if key in keys[:number] or key in set_keys:
            other = "--set" if key in set_keys else "--sweep"
            raise RecipeError(f"--sweep {key}: {other} gives it too", code="bad-sweep")
    trials = []
    for chosen in itertools.product(*map(values_of, sweeps)):
        values = dict(zip(keys, chosen, strict=True))
        wanted = tuple(f"{key}={_written(value)}" for key, value in values.items())
        trials.append(Trial(values, load_recipe(recipe, (*overrides, *wanted))))
    return trials


def values_of(sweep: str) -> list[Any]:
    """The values of `KEY=V1,V2`, each read as YAML: a value with commas in it stands in brackets
    (a list) or in quotes."""
    key, equals, text = sweep.partition("=")
    try:
        values = yaml.safe_load(f"[{text}]") if key.strip() and equals else []
    except yaml.YAMLError:
        values = []
    if not values:
        hint = "Such as --sweep train.lr=1e-4,3e-4; lists: --sweep train.betas=[0.9,0.95],[0.9,0.9]"
        raise RecipeError(f"--sweep takes KEY=V1,V2, not {sweep!r}", hint=hint, code="bad-sweep")
    return values


def refuse_same_runs(trials: list[Trial], ids: list[str]) -> None:
    """Raises RecipeError where two trials would be one run: equal values, or a field that no result
    depends on."""
    first: dict[str, Trial] = {}
    for trial, identifier in zip(trials, ids, strict=True):
        if identifier in first:
            same = first[identifier]
            hint = (
                "Give values that differ, of a field that the result depends on. How a run goes "
                "(such as train.workers) makes no other run; to try that, give each its --name."
            )
            raise RecipeError(
                f"--sweep: {same} and {trial} are the same run", identifier, hint, "same-run"
            )
        first[identifier] = trial


def run_sweep(trials: list[Trial], workdir: Workdir, options: Options, quiet: bool) -> list[Ended]:
    """Run what is not finished, one after another. A failed trial is said, and the others go on.

    Raises UserError before the first run for what is known to be wrong with any; Stopped and
    KeyboardInterrupt end the sweep.
    """
    check_stage_names(options)
    for trial in trials:
        prepare_for(trial.loaded.recipe)
    sources = [_sources(trial, workdir) for trial in trials]
    ids = [
        named_run(trial.loaded.recipe, trial.loaded.base, workdir, files)
        for trial, files in zip(trials, sources, strict=True)
    ]
    refuse_same_runs(trials, ids)
    ended: list[Ended] = []
    with ExitStack() as session:
        for trial, identifier, files in zip(trials, ids, sources, strict=True):
            progress = Progress(quiet=quiet)  # of its own: a failure can leave bar and log open
            progress.say(f"Sweep, {len(ended) + 1} of {len(trials)}: {trial}")
            _keep_ray(session, trial, identifier, workdir, options)
            problem = _one(trial, workdir, options, progress, files)
            if problem:
                Progress(quiet=quiet).say(f"{trial} failed: {problem}")
                session.close()  # the next one starts with a Ray that nothing has happened to
            ended.append(Ended(trial, identifier, problem))
    return ended


def result_of(workdir: Workdir, ended: list[Ended]) -> Comparison | None:
    """All trials that have begun, the best first; None where none has."""
    folders = [workdir.run(one.id) for one in ended]
    runs = [load_run(folder) for folder in folders if (folder / RECORD).exists()]
    return best_first(compare(workdir, runs)) if runs else None


def _sources(trial: Trial, workdir: Workdir) -> Fingerprints:
    """Of the source files; hashes come from the cache from the second time on."""
    loaded = trial.loaded
    remember_hashes(workdir.cache)
    check_recipe(loaded.recipe, loaded.base)
    return fingerprints(loaded.recipe, loaded.base, workdir.cache)


def _one(
    trial: Trial, workdir: Workdir, options: Options, progress: Progress, sources: Fingerprints
) -> str:
    """Run one trial; why it failed, else ''. The log of its run has the whole error."""
    try:
        execute(trial.loaded, workdir, options, progress, sources)
    except Stopped:
        raise
    except UserError as error:
        return error.problem
    except Exception as error:
        return repr(error)
    return ""


def _keep_ray(
    session: ExitStack, trial: Trial, identifier: str, workdir: Workdir, options: Options
) -> None:
    """Start the local Ray that the trials share, before the first that has something to do.

    On a cluster each run has a session of its own: there its workers are known by the run's id.
    """
    settings = trial.loaded.recipe.ray
    record = workdir.run(identifier) / RECORD
    finished = record.exists() and load_run(record.parent).status == "done"
    if finished or not options.use_ray or settings.address or "RAY_ADDRESS" in os.environ:
        return
    session.enter_context(ray_session(settings))


def _written(value: Any) -> str:
    """As YAML on one line: words and numbers as they are, the rest quoted or in brackets."""
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def dry_runs(trials: list[Trial], workdir: Workdir) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The plan of each trial, as JSON and as lines: all of the first, and of the others those lines
    that the first does not have."""
    from mutirao.run.dry_run import dry_run

    plans = [dry_run(trial.loaded, workdir) for trial in trials]
    if not any(value["sources_problem"] for value, _ in plans):
        refuse_same_runs(trials, [value["run"] for value, _ in plans])
    said: list[str] = []
    for number, (trial, (value, lines)) in enumerate(zip(trials, plans, strict=True), start=1):
        head = f"Sweep, {number} of {len(plans)}: {trial}"
        yield {"values": trial.values, **value}, [head, *(x for x in lines if x not in said)]
        said = said or lines
