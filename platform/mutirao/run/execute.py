"""One run from its recipe: every stage in order, each finished once, its energy in a ledger.

In: a loaded recipe, a workdir. Out: a `Run` whose record says what each stage became; results in
the store; `report.html` in the run's folder. A killed run is continued by the same command.
"""

from __future__ import annotations

import shutil
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutirao.core.energy import EnergyMeter
from mutirao.core.errors import RecipeError
from mutirao.core.job import StageJob
from mutirao.core.lease import Lease
from mutirao.core.manifest import MANIFEST, Manifest, commit, read_manifest
from mutirao.core.progress import Progress
from mutirao.core.recipe_file import LoadedRecipe
from mutirao.core.runs import Run, nearest_relative, open_run
from mutirao.core.stages import DATA_STAGES, STAGE_NAMES, Stage
from mutirao.core.takedown import wait_for_takedown
from mutirao.core.workdir import Workdir
from mutirao.run.assets import named_run
from mutirao.run.check import check_recipe
from mutirao.run.plan import NEVER_RAN, Step, make_step, stages_of
from mutirao.run.provenance import hardware, versions
from mutirao.run.record import note, recorded
from mutirao.run.session import prepare_for, ray_session
from mutirao.run.show import short
from mutirao.run.sources import fingerprints, remember_hashes
from mutirao.run.stopping import Stopping
from mutirao.run.summary import stage_line
from mutirao.run.table import stage_function

NEEDS_RAY = {*DATA_STAGES, "train"} - {"tokenizer"}


@dataclass(frozen=True)
class Options:
    until: str | None = None
    start: str | None = None  # --from: stages before it must be done
    redo: str | None = None
    new: bool = False  # start the run afresh: forget its checkpoints and metrics
    use_ray: bool = True
    stages: tuple[str, ...] = ()  # only these, in their order; empty: all of the recipe's
    report: bool = True  # write report.html at the end


@dataclass
class Execution:
    """What is known while a run goes on."""

    loaded: LoadedRecipe
    workdir: Workdir
    options: Options
    progress: Progress
    sources: list[dict[str, Any]] = field(default_factory=list)
    given: dict[str, Manifest] = field(default_factory=dict)
    done: dict[str, Manifest] = field(default_factory=dict)


def execute(
    loaded: LoadedRecipe,
    workdir: Workdir,
    options: Options,
    progress: Progress,
    sources: list[dict[str, Any]] | None = None,
    given: dict[str, Manifest] | None = None,
) -> Run:
    """Run the recipe to its end (or to `--until`). Raises UserError of the kind that ended it.

    sources: fingerprints that are known already; else the source files are read for them.
    given: results in this store that stand for their stages, whatever their key.
    """
    check_stage_names(options)
    remember_hashes(workdir.cache)
    check_recipe(loaded.recipe, loaded.base, _asked_for(options, given or {}))
    prepare_for(loaded.recipe)
    if sources is None:
        sources = fingerprints(loaded.recipe, loaded.base, workdir.cache)
    identifier = named_run(loaded.recipe, loaded.base, workdir, sources)
    state = Execution(loaded, workdir, options, progress, sources, given or {})
    directory = workdir.run(identifier)
    with Lease(directory / "lease.json", identifier).hold(
        lambda who: progress.say(f"Another process works on this run; waiting for it: {who}")
    ):
        wait_for_takedown(workdir.root, progress.say)
        run = open_run(workdir, identifier, loaded.recipe, loaded.base)
        _say_beginning(run, state)
        with progress.logged(directory / "logs"), recorded(run, state):
            _run_stages(run, state)
    return run


def _run_stages(run: Run, state: Execution) -> None:
    kin = nearest_relative(state.workdir, state.loaded.recipe, run.id)
    earlier = {**(kin[0].stages if kin else {}), **run.stages}
    with ExitStack() as open_things:
        stopping = open_things.enter_context(Stopping(run.directory, state.progress))
        meter: EnergyMeter | None = None
        ray_started = False
        for stage in stages_of(state.loaded.recipe, state.loaded.base):
            if state.options.stages and stage.name not in state.options.stages:
                continue
            if _is_behind(stage, state.options.until):
                break  # the recipe has no stage of that name
            step = _step(stage, state, earlier)
            if step.manifest is None:
                _must_not_precede(stage, state.options)
                if meter is None:
                    meter = open_things.enter_context(_meter(run, state))
                    stopping.watch_budget(meter)
                if state.options.use_ray and not ray_started and stage.name in NEEDS_RAY:
                    open_things.enter_context(ray_session(state.loaded.recipe.ray, run.id))
                    stopping.take_signals()
                    ray_started = True
            _one_stage(run, state, step, meter, stopping)
            if state.options.until == stage.name:
                break


def _one_stage(
    run: Run, state: Execution, step: Step, meter: EnergyMeter | None, stopping: Stopping
) -> None:
    """Make the stage's result unless it is there, and note it in the record."""
    name = step.stage.name
    if step.manifest is not None:
        state.done[name] = step.manifest
        state.progress.say(stage_line(name, step.manifest, reused=True))
        note(run, step, step.manifest)
        return
    assert step.directory is not None and meter is not None
    stopping.check()
    note(run, step, None)
    why = f" ({step.why})" if step.why not in ("", NEVER_RAN) else ""
    state.progress.say(f"{name:<13} {step.stage.what}{why}")
    lease = Lease(step.directory / "lease.json", run.id)
    with lease.hold(lambda who: state.progress.say(f"  waits for {who}, which makes the same")):
        manifest = read_manifest(step.directory)
        if manifest is None:
            # The meter inside: a stop after a checkpoint is no waste, whatever it turns into.
            with stopping.stage(), meter.stage(name, finished=_kept(run, step)):
                manifest = _make(run, state, step)
    state.done[name] = manifest
    state.progress.say(stage_line(name, manifest))
    note(run, step, manifest)
    stopping.check()


def _kept(run: Run, step: Step) -> tuple[Path, str]:
    """Files that a restart will not make again: the energy until the newest is not wasted."""
    if step.stage.name == "train":
        return run.directory / "checkpoints", "*/manifest.json"
    assert step.directory is not None
    return step.directory, "*.part.json"


def _make(run: Run, state: Execution, step: Step) -> Manifest:
    """Call the stage's function and commit what it returns."""
    assert step.directory is not None and step.key_parts is not None
    step.directory.mkdir(parents=True, exist_ok=True)
    began, clock = time.time(), time.monotonic()
    job = StageJob(
        stage=step.stage.name,
        recipe=state.loaded.recipe,
        directory=step.directory,
        inputs={k: v for k, v in state.done.items() if k in step.stage.inputs},
        run_dir=run.directory,
        progress=state.progress,
        use_ray=state.options.use_ray,
        base=state.loaded.base,
    )
    result = stage_function(step.stage.name)(job)
    content = {
        **{k: step.key_parts[k] for k in ("stage", "output_version", "inputs", "config", "assets")},
        "parts": [vars(part) for part in result.parts],
        "counts": result.counts,
        "info": result.info,
    }
    provenance = {
        "key": step.key,
        "run": run.id,
        "host": socket.gethostname(),
        "hardware": hardware(),
        "began": began,
        "wall_s": round(time.monotonic() - clock, 3),
        "versions": versions(),
        "notes": result.notes,
    }
    return commit(step.directory, content, provenance)


def _step(stage: Stage, state: Execution, earlier: dict[str, dict[str, Any]]) -> Step:
    if (manifest := state.given.get(stage.name)) is not None:
        return Step(stage, "done", "", manifest.directory.name, {}, manifest.directory, manifest)
    arguments = (stage, state.loaded.recipe, state.workdir, state.done, state.sources)
    step = make_step(*arguments, state.loaded.base, earlier, state.options.stages)
    if state.options.redo == stage.name and step.directory is not None:
        (step.directory / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(step.directory, ignore_errors=True)
        step = make_step(*arguments, state.loaded.base, {}, state.options.stages)
    return step


def _meter(run: Run, state: Execution) -> EnergyMeter:
    recipe = state.loaded.recipe
    return EnergyMeter(state.workdir.root, run.id, run.directory, recipe.energy, state.progress)


def _say_beginning(run: Run, state: Execution) -> None:
    kin = nearest_relative(state.workdir, state.loaded.recipe, run.id)
    state.progress.say(f"Run {run.id} in {short(run.directory)}")
    if run.status == "new" and kin:
        changed = "; ".join(kin[1][:3]) or "the content of the sources"
        state.progress.say(f"  a new run, it differs from {kin[0].id} in {changed}")
    elif run.status not in ("new", "done"):
        state.progress.say(
            f"  continues ({run.status}: {run.record['reason'] or 'no reason noted'})"
        )


def check_stage_names(options: Options) -> None:
    for flag, name in (
        ("--until", options.until),
        ("--from", options.start),
        ("--redo", options.redo),
    ):
        if name is not None and name not in STAGE_NAMES:
            raise RecipeError(
                f"{flag} {name}: there is no such stage", hint=f"Stages: {', '.join(STAGE_NAMES)}."
            )


def _asked_for(options: Options, given: dict[str, Manifest]) -> tuple[str, ...]:
    """The stages that this command can come to, without those whose results are given."""
    last = STAGE_NAMES.index(options.until) + 1 if options.until else len(STAGE_NAMES)
    names = [s for s in STAGE_NAMES[:last] if not options.stages or s in options.stages]
    return tuple(s for s in names if s not in given)


def _is_behind(stage: Stage, until: str | None) -> bool:
    return until is not None and STAGE_NAMES.index(stage.name) > STAGE_NAMES.index(until)


def _must_not_precede(stage: Stage, options: Options) -> None:
    if options.start and STAGE_NAMES.index(stage.name) < STAGE_NAMES.index(options.start):
        raise RecipeError(
            f"--from {options.start}: {stage.name} is not done yet",
            hint="Run without --from first.",
            code="not-done",
        )
