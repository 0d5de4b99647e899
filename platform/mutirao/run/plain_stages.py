"""The stages behind each `mutirao data` command on plain files, and which of them are new.

In: a command, and the stages that the folder given as INPUT has finished. Out: the stages of the
result in their order, and those that are taken over from the folder as they are. Decisions stand
beside one another, so each command sees what the earlier ones kept; what was written from the
decisions (kept text, tokenizer, tokens) is taken over only where no decision is new.
"""

from __future__ import annotations

from collections.abc import Collection

from mutirao.core.stages import BY_NAME, STAGE_NAMES

COMMANDS: dict[str, tuple[str, ...]] = {
    "clean": ("ingest", "clean"),
    "exact": ("ingest", "clean", "exact"),
    "langid": ("ingest", "clean", "langid"),
    "filter": ("ingest", "clean", "filter"),
    "neardup": ("ingest", "clean", "exact", "neardup"),
    "decontaminate": ("ingest", "clean", "decontaminate"),
    "tokenizer": ("ingest", "clean", "exact", "split", "tokenizer"),
    "pack": ("ingest", "clean", "exact", "split", "tokenizer", "pack"),
}
PRETOKENIZED = ("tokenizer", "pack")
NEEDS_LANGUAGE = ("clean", "langid", "filter")  # the others do the same for all languages
WRITTEN = ("split", "tokenizer", "pack")


def plan_stages(
    command: str, found: Collection[str], other_tokenizer: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(all stages of the result, those taken over). found: finished in the folder given as INPUT;
    other_tokenizer: not the one that was made there."""
    own = COMMANDS[command]
    kept = {n for n in found if n not in WRITTEN and (n != command or n == "clean")}
    wanted = kept | set(own)
    for name in WRITTEN:
        inputs = [one for one in BY_NAME[name].inputs if one in wanted or one in WRITTEN]
        is_new = name == command or (name == "tokenizer" and other_tokenizer)
        if name in found and not is_new and kept.issuperset(inputs):
            kept.add(name)
            wanted.add(name)
    return _in_order(wanted), _in_order(kept)


def _in_order(names: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in STAGE_NAMES if name in names)
