"""`mutirao data forget`: take documents out of a workdir and keep them out.

In: ids, URLs or lines of text. Out: a dated receipt in `takedown/receipts/`. In this order, so that
a kill at any moment leaves something that the same command finishes:
  search      everything that holds the documents (forget_plan.py); nothing changes
  list        their keyed hashes, which `clean` asks from then on (core/takedown.py)
  pending     the plan, places only, in `takedown/pending.json`
  rewrite     each part in place, in the same shape (data_jobs/results/scrub.py); its manifest keeps
              the content hash as identity and notes the new bytes, so nothing runs again for it
  receipt     counts, files and runs, no text; then the plan is removed
Models are not changed: the receipt names the runs that were trained on the documents.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_jobs.results import scrub
from data_jobs.results.forgotten import Wanted
from mutirao.core.errors import RecipeError, UserError
from mutirao.core.files import read_json, write_json
from mutirao.core.lease import Lease
from mutirao.core.manifest import MANIFEST, redact
from mutirao.core.runs import Run, all_runs
from mutirao.core.stages import DATA_STAGES
from mutirao.core.takedown import FOLDER, LEASE, PENDING, add
from mutirao.core.workdir import Workdir
from mutirao.run.forget_plan import Plan, make_plan
from mutirao.run.trained import trained_on

FORMAT = 1
SHORTEST_LINE = 20  # characters of text that may be matched
NUMBERS_ONLY = ("fingerprints.json", "filter-values", "scores")  # of the cache: no text in them
NOT_REACHED = (
    "the source files themselves, where they lie outside the workdir",
    "copies elsewhere: exports, result folders, other workdirs, backups, remote stores",
    "model weights and the vocabulary of a tokenizer (see `trained`)",
    "the number of a cluster of near-duplicates that stay (it may be 64 bits of the text's hash)",
    "blocks that the file system has given back but not yet overwritten",
)


def forget(
    workdir: Workdir, wanted: Wanted, near: bool, reason: str, dry_run: bool, say: Callable
) -> dict[str, Any]:
    """Do it, or with `dry_run` only say what would be done; returns the receipt.

    A takedown that was killed is finished first; for this, nothing needs to be asked for. Raises
    RecipeError where a run works on the documents (code running), or nothing was found (code
    nothing-found).
    """
    if not wanted and not (workdir.root / FOLDER / PENDING).exists():
        hint = "Give --id, --url or --match FILE."
        raise RecipeError("Forget which documents?", hint=hint, code="nothing-asked")
    if not workdir.store.is_dir():
        raise RecipeError("The workdir holds no results", str(workdir.root), code="nothing-found")
    if dry_run:
        plan = make_plan(workdir, wanted, near)
        if not plan.actions and not plan.documents:
            raise _nothing_found(workdir)
        return _receipt(workdir, plan, reason, dry_run=True)
    with Lease(workdir.root / FOLDER / LEASE, "mutirao data forget").hold(
        lambda who: say(f"Another takedown is at work; waiting for {who}")
    ):
        finished = _finish_pending(workdir, say)
        plan = make_plan(workdir, wanted, near)
        if not plan.actions and not plan.documents:
            if finished:
                return finished
            raise _nothing_found(workdir)
        _check_idle(workdir, plan)
        receipt = _receipt(workdir, plan, reason)
        add(workdir.root, plan.listed)
        pending = {"format": FORMAT, "actions": plan.actions, "receipt": receipt}
        write_json(workdir.root / FOLDER / PENDING, pending)
        return carry_out(workdir, say)


def carry_out(workdir: Workdir, say: Callable) -> dict[str, Any]:
    """Follow `pending.json` to its end; may be done again after a kill."""
    path = workdir.root / FOLDER / PENDING
    pending = read_json(path)
    receipt = pending["receipt"]
    _remove_leftovers(workdir)
    by_result: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for action in pending["actions"]:
        if "stage" in action:
            by_result.setdefault((action["stage"], action["key"]), []).append(action)
        else:
            scrub.blank_bytes(workdir.root / action["file"], action["spans"])
    for (stage, key), actions in by_result.items():
        directory = workdir.artefact(stage, key)
        say(f"  {stage:<13} {len(actions)} files")
        for action in actions:
            _rewrite(directory / action["part"], action)
        redact(directory, [action["part"] for action in actions])
    for name in receipt["reports"]:
        _write_report(workdir, name)
    name = f"{receipt['number']:04d}-{receipt['time'].replace(':', '-')}.json"
    place = workdir.root / FOLDER / "receipts" / name
    write_json(place, receipt)
    path.unlink()
    return {**receipt, "receipt": str(place)}


def _rewrite(path: Path, action: dict[str, Any]) -> None:
    if action["do"] == "rows":
        scrub.blank_rows(path, action["kind"], action["rows"])
    elif action["do"] == "bands":
        scrub.blank_bands(path, action["rows"])
    elif action["do"] == "tokens":
        scrub.blank_tokens(path, action["spans"], action["eos"])
    else:
        scrub.blank_samples(path, action["rows"])


def _finish_pending(workdir: Workdir, say: Callable) -> dict[str, Any] | None:
    if not (workdir.root / FOLDER / PENDING).exists():
        return None
    say("Finishing a takedown that was interrupted")
    return carry_out(workdir, say)


def _check_idle(workdir: Workdir, plan: Plan) -> None:
    """No run may read what is rewritten: one that uses it, or has not yet read all text."""
    for run in all_runs(workdir):
        if not Lease(run.directory / "lease.json").held_by_another():
            continue
        used = {(stage, entry.get("key")) for stage, entry in run.stages.items()}
        reading = run.stages.get("pack", {}).get("status") != "done"
        if reading or used & plan.results:
            raise RecipeError(
                f"Run {run.id} is at work on these documents",
                str(run.directory),
                f"Stop it (`mutirao runs stop {run.id}`), forget, then continue it "
                f"(`mutirao runs resume {run.id}`).",
                "running",
            )


def _remove_leftovers(workdir: Workdir) -> None:
    """What may hold text and can be made again: the cache, half-written files, and results that
    were never finished."""
    shutil.rmtree(workdir.root / "tmp", ignore_errors=True)
    for path in workdir.cache.iterdir() if workdir.cache.is_dir() else ():
        if path.name not in NUMBERS_ONLY:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for stage in (*DATA_STAGES, "evaluate"):
        folder = workdir.store / stage
        for directory in folder.iterdir() if folder.is_dir() else ():
            if not (directory / MANIFEST).exists():
                shutil.rmtree(directory, ignore_errors=True)
    for place in (workdir.store, workdir.runs):
        for path in place.glob("**/.*.tmp"):
            path.unlink(missing_ok=True)


def _receipt(workdir: Workdir, plan: Plan, reason: str, dry_run: bool = False) -> dict[str, Any]:
    runs = all_runs(workdir)
    touched = [run for run in runs if _uses(run, plan.results)]
    rewritten = [
        {
            "stage": action["stage"],
            "key": action["key"],
            "file": action["part"],
            "places": len(action["rows"] if "rows" in action else action["spans"]),
        }
        for action in plan.actions
        if "stage" in action
    ]
    files = [{"file": a["file"], "places": len(a["spans"])} for a in plan.actions if "file" in a]
    return {
        "format": FORMAT,
        "kind": "takedown-receipt",
        "number": 1 + len(list((workdir.root / FOLDER / "receipts").glob("*.json"))),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "reason": reason,
        "dry_run": dry_run,
        "documents": plan.documents,
        "unmatched": plan.unmatched,
        "copies": plan.copies,
        "near_duplicates": plan.near,
        "rewritten": rewritten,
        "text_files": files,
        "reports": [run.id for run in touched if (run.directory / "report.html").exists()],
        "trained": trained_on(workdir, runs, plan.actions),
        "not_reached": list(NOT_REACHED),
    }


def _uses(run: Run, results: set[tuple[str, str]]) -> bool:
    return any((stage, entry.get("key")) in results for stage, entry in run.stages.items())


def _write_report(workdir: Workdir, run_id: str) -> None:
    """Made again from what is left; a report that cannot be made is removed."""
    from mutirao.report.page import write_report
    from mutirao.run.show import manifests

    directory = workdir.run(run_id)
    try:
        run = next(run for run in all_runs(workdir) if run.id == run_id)
        write_report(directory, manifests(workdir, run), run.recipe())
    except (StopIteration, UserError, OSError, ValueError, KeyError):
        (directory / "report.html").unlink(missing_ok=True)


def _nothing_found(workdir: Workdir) -> RecipeError:
    return RecipeError(
        "No such document, or it was taken down already",
        str(workdir.root),
        "Give a whole id (32 digits, `mutirao data show --json`), a URL, or lines of its text.",
        "nothing-found",
    )


def read_wanted(ids: tuple[str, ...], urls: tuple[str, ...], files: tuple[Path, ...]) -> Wanted:
    """From the options; a line of a file is an id, a URL, or a line of the document's text. One of
    less than SHORTEST_LINE characters could take down much of a corpus: it is an id at most.

    Raises RecipeError for a file that cannot be read.
    """
    from mutirao.core.takedown import normalized

    words, places, lines = {w.strip() for w in ids}, {u.strip() for u in urls}, set()
    for path in files:
        try:
            listed = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise RecipeError(
                f"Cannot read the file: {said}", str(path), code="bad-match"
            ) from None
        for line in filter(None, map(str.strip, listed)):
            words.add(line)
            places.add(line)
            if len(normalized(line)) >= SHORTEST_LINE and "://" not in line:
                lines.add(normalized(line))
    return Wanted(
        frozenset(words | {w.lower() for w in words if len(w) == 32}) - {""},
        frozenset(places - {""}),
        frozenset(lines),
    )
