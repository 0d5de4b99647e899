"""Open the results of an earlier run by a folder: what a new crawl is compared with.

In: the folder of a run (`WORKDIR/runs/ID`), or that of a `mutirao data` command (it has
`result.json`, and a workdir of its own with one run). Out: {stage: committed Manifest}. Moved
folders open as well: nothing in them is an absolute path.
"""

from __future__ import annotations

from pathlib import Path

from mutirao.core.errors import RecipeError
from mutirao.core.files import canonical_json, read_json, sha256_hex
from mutirao.core.manifest import Manifest, check_format, read_manifest
from mutirao.core.runs import RECORD, load_run
from mutirao.core.stages import DECISION_STAGES, STAGE_NAMES
from mutirao.core.workdir import Workdir

RESULT = "result.json"
RESULT_FORMAT = 1
NEEDED = ("clean", "neardup")


def open_earlier(folder: Path) -> dict[str, Manifest]:
    """Manifests of the finished stages, in their order.

    Raises RecipeError if there is no such folder, no run in it, or `neardup` has not finished.
    """
    directory = _run_folder(folder)
    workdir = Workdir(directory.absolute().parent.parent)
    stages = load_run(directory).stages
    found = {}
    for name in STAGE_NAMES:
        key = stages.get(name, {}).get("key")
        manifest = read_manifest(workdir.artefact(name, key)) if key else None
        if manifest is not None:
            found[name] = manifest
    for name in NEEDED:
        if name not in found:
            raise RecipeError(
                f"The earlier result has no finished stage {name}",
                str(folder),
                "Finish it first: run its command again, as far as neardup.",
                "not-done",
            )
    return found


def earlier_hash(folder: Path) -> str:
    """sha256 of the content of what a new crawl reads of an earlier result."""
    found = open_earlier(folder)
    read = ("clean", *DECISION_STAGES)
    hashes = {name: found[name].content_hash for name in read if name in found}
    return sha256_hex(canonical_json(hashes))


def _run_folder(folder: Path) -> Path:
    if (folder / RESULT).is_file():
        record = read_json(folder / RESULT)
        check_format(record, RESULT_FORMAT, folder / RESULT)
        folder = folder / "runs" / record["run"]
    if (folder / RECORD).is_file():
        return folder
    there = "is not the result of a run" if folder.is_dir() else "does not exist"
    raise RecipeError(
        f"The earlier result {there}",
        str(folder),
        "Give a run's folder (WORKDIR/runs/ID) or the --output of a `mutirao data` command.",
        "no-result",
    )
