"""Near-duplicates of the documents that are to be forgotten: along verified edges alone.

In: the results of a workdir and the places of the documents in each result of `clean`. Out: places
of what resembles them, also where one of the two stands in an earlier result that `neardup.against`
named, as far as that one lies in the same workdir. Memory: 8 bytes a place, a batch of edges.
"""

from __future__ import annotations

from pathlib import Path

from data_jobs.results.forgotten import Place, near_across, near_copies
from mutirao.core.earlier import earlier_hash, open_earlier
from mutirao.core.errors import UserError
from mutirao.core.manifest import Manifest
from mutirao.core.runs import all_runs
from mutirao.core.workdir import Workdir
from mutirao.run.forget_parts import Store, inputs_are

ASSET = "against "  # and its number: an earlier result among the assets of neardup


def near_places(
    workdir: Workdir, store: Store, found: dict[Path, set[Place]]
) -> dict[Path, set[Place]]:
    """By folder of a result of `clean`: documents with an edge to one of `found`, without these."""
    alike: dict[Path, set[Place]] = {folder: set() for folder in found}
    earlier = _earlier_results(workdir, store)
    for clean in store["clean"]:
        here = clean.directory
        for neardup in inputs_are(store["neardup"], "clean", clean):
            alike[here] |= near_copies(neardup, found[here])
            for number, there in _against(neardup, earlier).items():
                ours, theirs = near_across(neardup, number, found[here], found[there])
                alike[here] |= ours
                alike[there] |= theirs
    return {folder: places - found[folder] for folder, places in alike.items()}


def _against(neardup: Manifest, earlier: dict[str, Path]) -> dict[int, Path]:
    """By the number of an earlier result, its text."""
    assets = neardup.content.get("assets", {})
    numbers = {int(name[len(ASSET) :]): name for name in assets if name.startswith(ASSET)}
    return {k: earlier[assets[name]] for k, name in numbers.items() if assets[name] in earlier}


def _earlier_results(workdir: Workdir, store: Store) -> dict[str, Path]:
    """The runs of this workdir as `neardup.against` hashes them -> the folder of their text."""
    named = any(n.startswith(ASSET) for m in store["neardup"] for n in m.content.get("assets", {}))
    found = {}
    for run in all_runs(workdir) if named else ():
        try:
            found[earlier_hash(run.directory)] = open_earlier(run.directory)["clean"].directory
        except UserError:  # it has not come to neardup
            continue
    return found
