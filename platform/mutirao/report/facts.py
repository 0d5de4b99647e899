"""One run as plain values: all that the page and its plots know (`gather.py` reads them).

Every piece may be missing (a run that stopped early, a stage that was never asked for); it is then
None or empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mutirao.core.carbon import Factor
from mutirao.report.rule_facts import Rules
from mutirao.report.tokenizer_facts import Fertility

Points = tuple[tuple[int, float], ...]  # (optimizer step, value)
LEFT_OUT = ("not-finite", "spike")  # events by which the guard leaves out one step


@dataclass(frozen=True)
class Drop:
    stage: str
    reason: str
    documents: int


@dataclass(frozen=True)
class SourceRow:
    name: str
    bytes_in: int | None
    documents_in: int | None
    kept: int | None  # documents
    tokens: int | None  # for training
    heldout_tokens: int | None


@dataclass(frozen=True)
class License:
    name: str  # SPDX id, 'unknown' or 'unrecognised'
    documents: int
    text_bytes: int


@dataclass(frozen=True)
class TextShare:
    """What one source gives under one licence (and genre), and what became of it."""

    source: str
    license: str  # SPDX id, 'unknown' or 'unrecognised'
    genre: str  # '' where the recipe names none
    documents: int  # kept
    text_bytes: int  # kept
    dropped_documents: int
    dropped_bytes: int


@dataclass(frozen=True)
class StageEnergy:
    stage: str
    measured_j: float
    estimated_j: float
    wasted_j: float  # lies within the two above
    wall_s: float | None
    cpu_s: float | None
    co2e_g: float | None

    @property
    def energy_j(self) -> float:
        return self.measured_j + self.estimated_j


@dataclass(frozen=True)
class Energy:
    energy_j: float
    measured_share: float
    wasted_j: float
    unattributed_j: float | None  # of the machine while the run was on it
    co2e_g: float | None
    stages: tuple[StageEnergy, ...]
    methods: tuple[tuple[str, float], ...]  # device and how its energy came about: joules
    gap_s: float = 0.0  # no meter ran
    notes: tuple[str, ...] = ()  # warnings of the meter


@dataclass(frozen=True)
class Sample:
    prompt: str
    continuation: str


@dataclass(frozen=True)
class StreamBits:
    """Held-out bits per byte of one stream."""

    name: str
    points: Points  # (tokens of the run, of the stream's first held-out sequences)
    final: float | None = None  # of the finished model on all held-out text of the stream
    text_bytes: int | None = None  # held out


@dataclass(frozen=True)
class Event:
    """Of the guard or the machine; a rollback went back `to_step`."""

    step: int
    what: str
    to_step: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class StageRow:
    name: str
    what: str
    key: str
    content_hash: str
    wall_s: float | None
    run: str  # the run that made the result


@dataclass(frozen=True)
class Facts:
    run_id: str
    language: str  # 'por_Latn'
    status: str
    language_name: str = ""  # "Portuguese (por_Latn)"; empty for a language without a pack
    reason: str = ""
    created: float | None = None  # UTC, seconds
    attempts: int = 0
    wall_s: float | None = None
    documents_in: int | None = None
    documents_kept: int | None = None
    corpus_tokens: int | None = None
    trained_tokens: int | None = None
    parameters: int | None = None
    bits_per_byte: float | None = None
    unigram_bits_per_byte: float | None = None
    drops: tuple[Drop, ...] = ()
    rules: Rules = field(default_factory=Rules)
    drops_overlap: bool = False  # a document may have been dropped by more than one stage
    sources: tuple[SourceRow, ...] = ()
    licenses: tuple[License, ...] = ()  # of the kept documents
    shares: tuple[TextShare, ...] = ()
    fertility: tuple[Fertility, ...] = ()  # the run's own tokenizer first
    losses: Points = ()  # nats per token
    heldout: Points = ()  # nats per token
    heldout_bits: tuple[StreamBits, ...] = ()
    unigram_loss: float | None = None  # nats per token on the held-out text
    speed: Points = ()  # tokens per second
    learning_rate: Points = ()
    restarts: tuple[int, ...] = ()  # steps at which a later attempt went on
    skipped_steps: int = 0
    events: tuple[Event, ...] = ()
    training: tuple[tuple[str, str], ...] = ()  # what was measured, and how much
    energy: Energy | None = None
    energy_problem: str = ""  # why the ledger could not be read
    country: str = ""
    factors: tuple[Factor, ...] = ()  # the one used, then others for the same grid
    samples: tuple[Sample, ...] = ()
    stages: tuple[StageRow, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    machines: tuple[str, ...] = ()
    recipe_yaml: str = ""
