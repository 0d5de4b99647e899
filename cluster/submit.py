"""Run a recipe as a job of a Ray cluster: pack code and recipe, hand them over, follow.

In: a loaded recipe, the cluster's address, the workdir on the cluster's shared disk.
Out: a job whose id is a hash of all that decides it, so submitting twice attaches to the running
job instead of starting a second one; and the exit code of the job itself.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.connect import connect
from cluster.follow import follow as follow_job
from cluster.follow import how_to_attach
from cluster.package import build_wheel, check_size, unpack
from mutirao.core.errors import EXIT_OK, EnvironmentProblem, RecipeError
from mutirao.core.files import canonical_json, sha256_file, sha256_hex
from mutirao.core.progress import Progress
from mutirao.core.recipe import Recipe, Source, Tokenized
from mutirao.core.recipe_file import LoadedRecipe, dump_recipe

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

RECIPE = "recipe.yaml"
STOP_WAIT_S = 600  # Ray kills a stopped job after 3 s by default, too soon for a checkpoint
NEEDED = ("ray", "torch", "pyarrow", "pydantic")


@dataclass(frozen=True)
class Package:
    """directory: what is uploaded (the four packages and the recipe); sha256: of its content."""

    directory: Path
    sha256: str
    bytes: int


def submit(
    loaded: LoadedRecipe,
    address: str,
    workdir: str,
    follow: bool,
    progress: Progress,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Submit, or attach to the same job if it is running; the exit code.

    `environment` is what driver and workers get. Raises RecipeError for an unsafe address,
    EnvironmentProblem where no cluster answers, UserError if the package is too large.
    """
    client = connect(address)
    with tempfile.TemporaryDirectory(prefix="mutirao-") as temporary:
        package = make_package(loaded, Path(temporary))
        runtime_env = {
            "working_dir": str(package.directory),
            "env_vars": job_environment(workdir, environment or {}),
        }
        job_id, is_new = submit_entrypoint(
            client,
            run_entrypoint(workdir),
            submission_id(package, workdir),
            runtime_env,
            {"recipe": loaded.recipe.name, "workdir": workdir},
        )
    verb = "Submitted" if is_new else "Already running:"
    progress.say(f"{verb} {job_id} (package {package.bytes / 1e6:.1f} MB, workdir {workdir})")
    if follow:
        return follow_job(client, job_id, address, progress)
    print(job_id, flush=True)
    progress.say(how_to_attach(job_id, address))
    return EXIT_OK


def submit_entrypoint(
    client: JobSubmissionClient,
    entrypoint: str,
    base_id: str,
    runtime_env: dict,
    metadata: dict[str, str] | None = None,
) -> tuple[str, bool]:
    """(job id, whether it is new). A job of this id that has ended is followed by `-2`, `-3`, ...

    Two submitters at once end up with one job: the server takes an id only once.
    """
    for _ in range(3):
        job_id, running = _next_id(client, base_id)
        if running:
            return job_id, False
        try:
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env=runtime_env,
                metadata=dict(metadata or {}),
            )
            return job_id, True
        except (RuntimeError, OSError) as error:
            problem = error
            if _next_id(client, base_id) == (job_id, False):  # refused for another reason
                break
    first = str(problem).strip().splitlines()[0][:300]
    hint = "The head's dashboard log has the reason; then run the same command again."
    raise EnvironmentProblem(f"The cluster refused the job: {first}", hint=hint, code="job-refused")


def submission_id(package: Package, workdir: str) -> str:
    """`mutirao-<12 hex digits>` of code, recipe, further files and workdir."""
    digest = sha256_hex(canonical_json({"package": package.sha256, "workdir": workdir}))
    return f"mutirao-{digest[:12]}"


def make_package(loaded: LoadedRecipe, temporary: Path) -> Package:
    """Put code, recipe and the small files it names into one folder below `temporary`."""
    wheel = build_wheel(temporary)
    directory = temporary / "job"
    unpack(wheel, directory)
    text = dump_recipe(with_absolute_sources(loaded.recipe, loaded.base))
    (directory / RECIPE).write_text(text, encoding="utf-8")
    hashes = {"code": sha256_file(wheel), RECIPE: sha256_hex(text.encode("utf-8"))}
    for name in named_files(loaded.recipe):
        hashes[name] = sha256_file(_copy_beside(name, loaded.base, directory))
    return Package(directory, sha256_hex(canonical_json(hashes)), check_size(directory))


def with_absolute_sources(recipe: Recipe, base: Path) -> Recipe:
    """Sources stay where they are: every node reads them by the same absolute path."""

    def absolute(path: str) -> str:
        return path if "://" in path else str(base / path)

    def moved(source: Source | Tokenized) -> Any:
        path = source.path
        new = absolute(path) if isinstance(path, str) else tuple(map(absolute, path))
        return source.model_copy(update={"path": new})

    sources, tokenized = (tuple(map(moved, group)) for group in (recipe.sources, recipe.tokenized))
    return recipe.model_copy(update={"sources": sources, "tokenized": tokenized})


def named_files(recipe: Recipe) -> list[str]:
    """Relative names of files that travel with the recipe. Their names are identity fields, so
    making them absolute would make another run."""
    model = recipe.langid.model
    names = [*recipe.decontaminate.against, *([model] if model != "builtin" else [])]
    return sorted({name for name in names if not Path(name).is_absolute()})


def _copy_beside(name: str, base: Path, directory: Path) -> Path:
    target = directory / name
    if not target.resolve().is_relative_to(directory.resolve()):
        hint = "Move it beside the recipe, or name it by an absolute path that all nodes can read."
        raise RecipeError(f"{name} is outside the recipe's folder", hint=hint, code="file-outside")
    if not (base / name).is_file():
        raise RecipeError("No such file", str(base / name), "The recipe names it.", "no-asset")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(base / name, target)
    return target


def job_environment(workdir: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment of driver and workers. Never secrets: Ray shows it in logs and dashboard."""
    return {
        **environment,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
        "MUTIRAO_HOME": workdir,
    }


def run_entrypoint(workdir: str, here: str = sys.executable) -> str:
    """The shell line the head runs: the first interpreter that has what we need runs the recipe.

    `python` on the head is whatever its PATH says, often one without Ray. This machine's own
    interpreter is tried first: it is the right one where the cluster runs here or was set up alike.
    """
    found = f"import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, {NEEDED})))"
    command = f"-m mutirao.cli.main run {RECIPE} --workdir {shlex.quote(workdir)}"
    sentence = "mutirao: no Python with Ray and PyTorch on the PATH of the cluster's head"
    cure = "  Put its environment's bin folder first in PATH, then start Ray there again."
    return (
        f"for p in {shlex.quote(here)} python python3; do "
        f'if "$p" -c {shlex.quote(found)} 2>/dev/null; then exec "$p" {command}; fi; done; '
        f"echo {shlex.quote(sentence)} >&2; echo {shlex.quote(cure)} >&2; "
        f"exit {EnvironmentProblem.exit_code}"
    )


def _next_id(client: JobSubmissionClient, base_id: str) -> tuple[str, bool]:
    """The id to use now, and whether a job with it is still under way."""
    ended = {job.submission_id: job.status.is_terminal() for job in client.list_jobs()}
    number, job_id = 1, base_id
    while ended.get(job_id):
        number += 1
        job_id = f"{base_id}-{number}"
    return job_id, job_id in ended
