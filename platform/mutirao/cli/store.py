"""`mutirao store`: how big results are, removing what no run needs, checking hashes."""

from __future__ import annotations

import click

from mutirao.cli.common import global_options, print_result, settings


@click.group()
def store() -> None:
    """Size, clean and verify results."""


@store.command()
@global_options
def size() -> None:
    """Bytes by stage, and how much no run needs any more."""
    from mutirao.core.store import artefacts

    rows: dict[str, dict] = {}
    for item in artefacts(settings().workdir):
        row = rows.setdefault(item.stage, {"results": 0, "bytes": 0, "unused_bytes": 0})
        row["results"] += 1
        row["bytes"] += item.bytes
        row["unused_bytes"] += 0 if item.runs else item.bytes
    lines = [f"{'stage':<14}{'results':>8}{'MB':>12}{'unused MB':>12}"]
    for stage, row in rows.items():
        lines.append(
            f"{stage:<14}{row['results']:>8}{row['bytes'] / 1e6:>12,.1f}"
            f"{row['unused_bytes'] / 1e6:>12,.1f}"
        )
    total = sum(row["bytes"] for row in rows.values())
    lines.append(f"{'all':<14}{sum(r['results'] for r in rows.values()):>8}{total / 1e6:>12,.1f}")
    print_result(rows, lines)


@store.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@global_options
def gc(dry_run: bool) -> None:
    """Remove results that no run reaches."""
    from mutirao.core.store import collect

    removed = collect(settings().workdir, dry_run)
    total = sum(item.bytes for item in removed)
    verb = "Would remove" if dry_run else "Removed"
    lines = [f"  {item.stage}/{item.key}  {item.bytes / 1e6:,.1f} MB" for item in removed]
    lines.append(f"{verb} {len(removed)} results, {total / 1e6:,.1f} MB.")
    value = [{"stage": i.stage, "key": i.key, "bytes": i.bytes} for i in removed]
    print_result({"removed": value, "bytes": total, "dry_run": dry_run}, lines)


@store.command()
@global_options
def verify() -> None:
    """Check every result's size and hash; exit 3 if something is damaged."""
    from mutirao.core.errors import DataError
    from mutirao.core.store import verify_all

    count, problems = verify_all(settings().workdir)
    print_result({"checked": count, "problems": problems}, [*problems, f"{count} results checked."])
    if problems:
        hint = "Make them again: mutirao run RECIPE --redo STAGE."
        raise DataError(f"{len(problems)} files are damaged", hint=hint, code="damaged")
