"""`mutirao init`: look at a person's own files, then write a commented recipe for them.

In: files or folders, a language code. Out: counts of bytes, documents and languages, a recipe text
of under 60 lines whose sizes (vocabulary, tokens, model) follow from how much text there is.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutirao.core.errors import RecipeError
from mutirao.core.language_codes import labels_of
from mutirao.core.languages import load_pack
from mutirao.core.model_size import load_preset
from mutirao.core.recipe import LangId, Recipe, Source

BYTES_PER_TOKEN = 3.5  # of a small vocabulary on Portuguese; a first estimate, the run measures it
BATCH = 200  # documents whose language is identified at once
MAX_EPOCHS = 4  # repetition that still helps (Muennighoff et al., arXiv 2305.16264)


@dataclass
class Census:
    """What the files hold. `languages` counts documents by ISO 639-3 code ('?' where unsure)."""

    files: int = 0
    file_bytes: int = 0
    documents: int = 0
    text_bytes: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    language_bytes: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        rows = [
            f"{self.files} file{'s' * (self.files != 1)}, {self.documents:,} documents, "
            f"{self.text_bytes:,} bytes of text"
        ]
        top = self.languages.most_common(6)
        total = sum(self.languages.values())
        rows.append("Languages: " + ", ".join(f"{code} {n / total:.1%}" for code, n in top))
        if self.rejected:
            bad = ", ".join(f"{reason} {n:,}" for reason, n in self.rejected.most_common(4))
            rows.append(f"Not readable as documents: {bad}")
        return rows


def take_census(files: list[dict[str, Any]], recipe: Recipe) -> Census:
    """Read every file once, with the readers and the language identifier that the run will use."""
    from data_jobs.read.documents import Piece, ReadOptions, Reject
    from data_jobs.read.places import Place
    from data_jobs.read.readers import read

    census = Census(files=len(files), file_bytes=sum(f["bytes"] for f in files))
    sources = {source.name: source for source in recipe.sources}
    limit, html = recipe.clean.max_document_bytes, recipe.clean.html
    waiting: list[str] = []
    for entry in files:
        named = sources[entry["source"]]
        options = ReadOptions(named.kind, named.text_field, max_bytes=limit, html=html)
        for item in read(Piece(Place(entry["path"]), entry["format"]), options):
            if isinstance(item, Reject):
                census.rejected[item.reason] += 1
                continue
            text = item.text or "\n\n".join(content for _, content in item.messages)
            if text.strip():
                census.documents += 1
                census.text_bytes += len(text.encode("utf-8", "replace"))
                waiting.append(text)
                if len(waiting) == BATCH:
                    _count_languages(census, waiting)
    _count_languages(census, waiting)
    return census


def _count_languages(census: Census, texts: list[str]) -> None:
    """Identify a batch of texts and forget them."""
    from data_jobs.langid import identify, model_path

    if texts:
        found = identify(texts, str(model_path("builtin", Path())))
        for text, (label, confidence) in zip(texts, found, strict=True):
            code = label if confidence >= LangId().min_confidence else "?"
            census.languages[code] += 1
            census.language_bytes[code] += len(text.encode("utf-8", "replace"))
        texts.clear()


def sizes_for(text_bytes: int) -> dict[str, int]:
    """Vocabulary, training tokens and batch for so much text: one pass, at least 500k tokens but
    never more than four passes; a larger vocabulary only where there is text to fill it."""
    available = int(text_bytes / BYTES_PER_TOKEN)
    tokens = min(max(available, 500_000), max(MAX_EPOCHS * available * 9 // 10, 1))
    vocab = 1024 if text_bytes < 500_000 else 4096 if text_bytes < 50_000_000 else 16_384
    tokens = max(round(tokens, -3), 1000)
    batch = min(16, tokens // load_preset("demo")["context"])
    return {"vocab_size": vocab, "tokens": tokens, "global_batch": batch}


def sources_for(inputs: tuple[str, ...], base: Path) -> list[Source]:
    """One source per input; places inside the recipe's folder are written relative to it."""
    sources, names = [], Counter[str]()
    for entry in inputs:
        path = Path(entry).absolute()
        url = "://" in entry
        if not url and not path.exists() and not any(c in entry for c in "*?["):
            raise RecipeError("No such file or folder", entry, code="no-source")
        name = path.name.split(".")[0].replace("*", "all").replace(" ", "-") or "text"
        names[name] += 1
        if names[name] > 1:
            name = f"{name}-{names[name]}"
        sources.append(Source(path=entry if url else _place(path, base), name=name))
    return sources


def _place(path: Path, base: Path) -> str:
    """Relative to the recipe's folder where it is near, so that both can move together."""
    relative = os.path.relpath(path, base)
    return relative if relative.count("..") <= 2 else str(path)


def recipe_text(name: str, language: str, sources: list[Source], census: Census) -> str:
    """The commented recipe, under 60 lines for up to 9 sources."""
    pack = load_pack(language)
    found = sum(census.language_bytes[label] for label in labels_of(language))
    size = sizes_for(found or census.text_bytes)
    note = f"filters of the pack {pack.code} ({pack.name})"
    listed = "\n".join(
        f"  - path: {_quote(str(s.path))}\n    name: {_quote(s.name)}" for s in sources
    )
    return f"""\
# {name}: {census.documents:,} documents, {census.text_bytes:,} bytes of text.
# Check it with `mutirao recipe check`, look ahead with `mutirao run --dry-run`.
format: 1
name: {_quote(name)}
language: {pack.language}      # {note}
seed: 42

# jsonl, text, csv, parquet, Arrow, WARC or a Wikipedia dump; .gz, .zst and .bz2 are read too.
# For each source also: text_field, id_field, license (SPDX), format; weight, max_epochs (mixing).
sources:
{listed}

ingest:
  max_quarantined: 0.001  # stop if more of a source's bytes cannot be read
langid:
  min_confidence: 0.5     # below it a document is dropped as unsure
neardup:
  threshold: 0.8          # Jaccard of word 5-gram sets
# exact: {{prefer: [NAME]}} # of documents that are alike those of this source stay
# decontaminate: {{against: [my-test.jsonl]}} # besides the evaluation sets of the language pack
split:
  heldout: 0.02           # share that training never sees; more text later moves none of it

tokenizer:
  kind: bpe               # or sentencepiece-bpe, sentencepiece-unigram; or path: an existing one
  vocab_size: {size["vocab_size"]:<12}# more text carries a larger vocabulary

model:
  preset: demo            # ttl-160m, ttl-460m and 1b want GPUs
train:
  tokens: {size["tokens"]:<16}# at most {MAX_EPOCHS} passes over the text
  global_batch: {size["global_batch"]:<10}# sequences per step
  lr: 2e-3
  # Below: how to run it. May change at any time without starting another run.
  workers: 2
  zero_stage: 2           # 1, 2 or 3; on one machine 2 is a good choice
  checkpoint_every: 200

energy:
  country: BRA            # for grams of CO2e per kWh
  # budget_kwh: 1.0       # stop with a checkpoint when it is used up
"""


def _quote(value: str) -> str:
    plain = value.replace("-", "").replace("_", "").replace("/", "").replace(".", "")
    return value if plain.isalnum() and not value[0].isdigit() else f'"{value}"'
