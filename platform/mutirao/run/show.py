"""What a person sees of a run: one row in a list, one page in the terminal, one JSON record."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from mutirao.core.lease import process_alive
from mutirao.core.manifest import Manifest, read_manifest
from mutirao.core.runs import Run
from mutirao.core.stages import STAGE_NAMES
from mutirao.core.workdir import Workdir
from mutirao.report.training import training_words
from mutirao.run.summary import stage_line


def workdir_of(run: Run) -> Workdir:
    return Workdir(run.directory.parent.parent)


def manifests(workdir: Workdir, run: Run) -> dict[str, Manifest]:
    """The committed results of the run's stages, in their order; missing ones are left out."""
    found = {}
    for name in STAGE_NAMES:
        entry = run.stages.get(name)
        if entry and entry.get("key"):
            manifest = read_manifest(workdir.artefact(name, entry["key"]))
            if manifest is not None:
                found[name] = manifest
    return found


def is_running(run: Run) -> bool:
    process = run.record.get("process", {})
    here = process.get("host") == socket.gethostname()
    return run.status == "running" and (not here or process_alive(int(process.get("pid", -1))))


def status_word(run: Run) -> str:
    """The recorded status, except that a run whose process is gone was killed."""
    return "killed" if run.status == "running" and not is_running(run) else run.status


def run_row(run: Run) -> str:
    done = [n for n in STAGE_NAMES if run.stages.get(n, {}).get("status") == "done"]
    last = done[-1] if done else "-"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.record["created"]))
    return f"{run.id:<28} {status_word(run):<12} {when}  {last}"


def run_record(run: Run) -> dict[str, Any]:
    found = manifests(workdir_of(run), run)
    return {
        "id": run.id,
        "status": status_word(run),
        "reason": run.record["reason"],
        "attempts": run.record["attempts"],
        "directory": str(run.directory),
        "stages": {
            name: {
                "key": run.stages[name]["key"],
                "content_hash": m.content_hash,
                "directory": str(m.directory),
                "counts": m.counts,
                "wall_s": m.provenance.get("wall_s"),
            }
            for name, m in found.items()
        },
        "evaluation": evaluation(found),
        "energy": energy_totals(run),
    }


def run_summary(run: Run, stages: bool = True) -> list[str]:
    """The run on a page; `stages=False` where they have just been said one by one."""
    found = manifests(workdir_of(run), run)
    head = f"Run {run.id}: {status_word(run)}"
    lines = [head + (f" ({run.record['reason']})" if run.record["reason"] else "")]
    if stages:
        lines += [stage_line(name, manifest) for name, manifest in found.items()]
    result = evaluation(found)
    if result:
        lines.append(
            f"Held-out text: {result['bits_per_byte']:.3f} bits per byte, "
            f"unigram model {result['unigram_bits_per_byte']:.3f}"
        )
    if stages:
        lines += [f"  {what}: {words}" for what, words in training_words(run.directory)]
    totals = energy_totals(run)
    if totals:
        lines.append(energy_line(totals))
    for label, name in (("Model ", "model"), ("Report", "report.html")):
        if (run.directory / name).exists():
            lines.append(f"{label} {short(run.directory / name)}")
    return lines


def evaluation(found: dict[str, Manifest]) -> dict[str, Any]:
    if "evaluate" not in found:
        return {}
    return json.loads((found["evaluate"].directory / "evaluation.json").read_bytes())


def energy_totals(run: Run) -> dict[str, Any]:
    """Totals of the ledger; {} for a run that was never measured."""
    from mutirao.core.ledger import totals

    return totals(run.directory)


def energy_line(totals: dict[str, Any]) -> str:
    from mutirao.core.ledger import kwh

    grams = totals["co2e_g"]
    carbon = f", {grams:.2f} g CO2e" if grams is not None else ""
    return (
        f"Energy of this run: {kwh(totals['energy_j'])} kWh "
        f"({totals['measured_share']:.0%} measured){carbon}"
    )


def short(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
