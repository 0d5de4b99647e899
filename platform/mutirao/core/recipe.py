"""A recipe: what to make (identity, hashed) and how to run it (execution, not hashed).

In: a YAML file, or the name of a shipped recipe, and `--set key=value` overrides.
Out: a frozen `Recipe`. Every field carries its role in its type: a changed identity field makes
another run, a changed execution field continues the same one. A typo stops with the nearest name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    field_validator,
    model_validator,
)

FORMAT = 1

T = TypeVar("T")
Identity = Annotated[T, "identity"]
Execution = Annotated[T, "execution"]
Mixing = Annotated[T, "identity", "mixing"]  # of a source: read by training, not by the data stages


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Source(Section):
    """One source of text: a file, a folder, a glob, a URL or a list of them.

    `sample://` is the bundled text, `s3://` and `gs://` object stores, `hf://datasets/OWNER/NAME` a
    dataset of the Hugging Face hub; a folder that `datasets` saved is read as it is.
    """

    path: Execution[str | tuple[str, ...]]  # the content is hashed instead of the place
    name: Identity[str] = ""  # default: the file's stem
    format: Identity[
        Literal["auto", "jsonl", "text", "csv", "parquet", "arrow", "warc", "wikipedia"]
    ] = "auto"
    kind: Identity[Literal["text", "instruction"]] = "text"  # instruction: turns with their roles
    text_field: Identity[str] = "text"
    id_field: Identity[str] = "id"
    url_field: Identity[str] = "url"
    license_field: Identity[str] = "license"
    messages_field: Identity[str] = "messages"  # [{role, content}, ...]
    prompt_field: Identity[str] = "prompt"  # where there are no messages; `a+b` joins two fields
    completion_field: Identity[str] = "completion"
    license: Identity[str] = ""  # SPDX id for documents that carry none
    genre: Identity[str] = ""  # a genre of the language pack: its thresholds, where it has some
    # How often training reads a token of this source beside one of a source with weight 1.
    weight: Mixing[float] = Field(1.0, ge=0)
    max_epochs: Mixing[float | None] = Field(None, gt=0)  # default: train.max_epochs


class Tokenized(Section):
    """Text that was tokenised elsewhere, with the tokenizer that `tokenizer.path` names."""

    path: Execution[str | tuple[str, ...]]  # files or globs; the content is hashed
    name: Identity[str] = ""  # of the stream; default: the file's stem
    format: Identity[Literal["auto", "parquet", "npy", "megatron"]] = "auto"
    ids_field: Identity[str] = "input_ids"  # parquet
    eos: Identity[Literal["present", "add"]] = "present"  # add: put one after each document
    weight: Mixing[float] = Field(1.0, ge=0)
    max_epochs: Mixing[float | None] = Field(None, gt=0)


class Ingest(Section):
    # Share of bytes per source. No output depends on it: a run refused for it continues.
    max_quarantined: Execution[float] = Field(0.001, ge=0, le=1)
    # A larger file is read in pieces of this size, by several workers where its format allows.
    piece_bytes: Identity[int] = Field(268_435_456, ge=1_000)


class Clean(Section):
    max_document_bytes: Identity[int] = Field(10_000_000, gt=0)  # longer documents are rejected
    unicode_repair: Identity[bool] = True  # ftfy, where a cheap test shows need
    html: Identity[Literal["extract", "keep"]] = "extract"  # pages, and markup inside other text
    html_engine: Identity[Literal["resiliparse", "trafilatura"]] = "resiliparse"
    hyphenation: Identity[bool] = True  # join words that a line end has cut
    boilerplate: Identity[bool] = True  # take out repeated lines and the pack's stock phrases
    personal_data: Identity[Literal["mask", "keep"]] = "mask"  # e-mail, IP, phone, the pack's own
    shard_bytes: Identity[int] = Field(64_000_000, gt=0)  # text per text shard


class Exact(Section):
    normalize: Identity[Literal["none", "whitespace", "casefold"]] = "casefold"
    # Sources whose documents stay before equal or nearly equal ones of others, the best first;
    # neardup follows it too.
    prefer: Identity[tuple[str, ...]] = ()


class LangId(Section):
    keep: Identity[tuple[str, ...]] = ()  # language codes; default: the recipe's language
    min_confidence: Identity[float] = Field(0.5, ge=0, le=1)
    model: Identity[str] = "builtin"  # or the path of a fastText model (its hash enters the key)
    engine: Identity[Literal["fast", "fasttext"]] = "fast"  # fast: pycld2 first, fastText in doubt
    window_bytes: Identity[int] = Field(1200, ge=200)  # of a long document, in three places
    mode: Identity[Literal["document", "paragraph"]] = "document"
    min_share: Identity[float] = Field(0.5, ge=0, le=1)  # paragraph mode: of the text in `keep`
    varieties: Identity[tuple[str, ...]] = ()  # such as pt-BR; default: all, undecided too


class Filter(Section):
    """Thresholds come from the language pack; a value here overrides the pack's."""

    thresholds: Identity[dict[str, float | None]] = {}  # null: the rule is off
    allowed_licenses: Identity[tuple[str, ...]] = ()  # SPDX ids, "" for none stated; empty: all
    scores: Identity[dict[str, str]] = {}  # name -> a fastText model; thresholds min_ / max_NAME


class NearDup(Section):
    threshold: Identity[float] = Field(0.8, gt=0, le=1)  # Jaccard of word 5-gram sets
    recall: Identity[float] = Field(0.999, gt=0, lt=1)  # of pairs at the threshold
    permutations: Identity[int] = Field(112, gt=0)  # at most
    bands: Identity[int] = Field(0, ge=0)  # 0: chosen for threshold and recall
    rows: Identity[int] = Field(0, ge=0)
    ngram: Identity[int] = Field(5, gt=0)
    survivors: Identity[Literal["star", "closure"]] = "star"  # closure: one of each cluster stays
    quality: Identity[str] = ""  # a score or value of `filter`: the higher stays; then the longer
    # Results of earlier runs (folders): documents near to one that they kept are dropped.
    against: Execution[tuple[str, ...]] = ()  # their content is hashed instead of the place
    paragraphs: Identity[Literal["keep", "drop"]] = "keep"  # that stood in another document before
    paragraph_words: Identity[int] = Field(20, gt=0)  # shorter ones are never dropped


class Decontaminate(Section):
    pack_sets: Identity[bool] = True  # the evaluation sets that the language pack names
    against: Identity[tuple[str, ...]] = ()  # evaluation files (jsonl, text); content is hashed
    ngram: Identity[int] = Field(13, gt=0)
    min_words: Identity[int] = Field(8, gt=0)  # evaluation texts of fewer are not looked for
    max_overlap: Identity[float] = Field(0.0, ge=0, le=1)  # share of a document's n-grams


class Split(Section):
    heldout: Identity[float] = Field(0.02, gt=0, lt=1)  # share of duplicate clusters, per source


class Tokenizer(Section):
    kind: Identity[Literal["bpe", "sentencepiece-bpe", "sentencepiece-unigram"]] = "bpe"
    path: Execution[str] = ""  # an existing tokenizer instead (its content is hashed)
    vocab_size: Identity[int] = Field(4096, ge=300, le=1_000_000)  # spare ids included
    spare_ids: Identity[int] = Field(64, ge=0)
    sample_bytes: Identity[int] = Field(50_000_000, gt=0)  # text the tokenizer is trained on
    compare: Execution[tuple[str, ...]] = ()  # tokenizers whose fertility is reported beside it


class Pack(Section):
    stream_bytes: Identity[int] = Field(256_000_000, gt=0)  # bytes per token shard
    engine: Execution[Literal["auto", "fast", "huggingface"]] = "auto"  # the ids are the same


class Model(Section):
    """A Llama. `preset` names dimensions shipped as data; a dimension given here overrides it."""

    preset: Identity[str] = "demo"
    hidden_size: Identity[int | None] = None
    intermediate_size: Identity[int | None] = None
    layers: Identity[int | None] = None
    heads: Identity[int | None] = None
    kv_heads: Identity[int | None] = None
    context: Identity[int | None] = None
    vocab_size: Identity[int | None] = None  # default: the tokenizer's
    tie_embeddings: Identity[bool | None] = None
    rope_theta: Identity[float | None] = None
    norm_eps: Identity[float | None] = None


class Guard(Section):
    """What the training does about values that are not finite, spikes and faults of the machine."""

    spike_sigma: Identity[float] = Field(6.0, ge=0)  # deviations over the window's mean; 0: off
    window: Identity[int] = Field(128, ge=8)  # good steps that a spike is measured against
    rollback_after: Identity[int] = Field(5, gt=0)  # bad steps in a row, then the last checkpoint
    max_rollbacks: Execution[int] = Field(3, ge=0)  # for bad steps; as many for faults
    # Faults of the machine: every so many steps (0: never); no result depends on them.
    recompute_every: Execution[int] = Field(500, ge=0)  # one micro-batch again, the same loss?
    weights_every: Execution[int] = Field(500, ge=0)  # are weights that should be equal, equal?


class Train(Section):
    # RUN@STEP, or the folder of a Llama: start from its weights. Its content is hashed.
    from_: Execution[str] = Field("", alias="from")
    from_optimizer: Identity[bool] = False  # its moments too, and on the same pack its place in it
    tokens: Identity[int] = Field(1_000_000, gt=0)
    global_batch: Identity[int] = Field(16, gt=0)  # sequences per optimizer step
    loss_on: Identity[Literal["all", "answers"]] = "all"  # answers: of instruction documents
    document_mask: Identity[bool] = (
        False  # attention inside documents; positions begin anew in each
    )
    lr: Identity[float] = Field(1e-3, gt=0)
    min_lr_ratio: Identity[float] = Field(0.1, ge=0, le=1)
    warmup_steps: Identity[int] = Field(20, ge=0)
    schedule: Identity[Literal["cosine", "wsd"]] = "cosine"
    decay_fraction: Identity[float] = Field(0.2, gt=0, le=1)  # wsd: share of steps in the decay
    decay_shape: Identity[Literal["linear", "sqrt"]] = "linear"  # wsd
    betas: Identity[tuple[float, float]] = (0.9, 0.95)
    eps: Identity[float] = Field(1e-8, gt=0)
    weight_decay: Identity[float] = Field(0.1, ge=0)
    clip: Identity[float] = Field(1.0, ge=0)  # 0: no clipping
    # auto: bf16 where the card has it, else fp16 with loss scaling; fp32 on CPU
    dtype: Identity[Literal["auto", "fp32", "bf16", "fp16"]] = "auto"
    max_epochs: Identity[float] = Field(4.0, gt=0)  # more repetitions are refused
    guard: Identity[Guard] = Guard()
    engine: Execution[Literal["deepspeed", "torch"]] = "deepspeed"
    workers: Execution[int] = Field(2, gt=0)
    min_workers: Execution[int] = Field(0, ge=0)  # go on with as few as this; 0: all or none
    zero_stage: Execution[Literal[1, 2, 3]] = 2
    offload: Execution[Literal["none", "optimizer"]] = "none"  # optimizer: moments in host memory
    deepspeed: Execution[dict[str, Any]] = {}  # further keys of its configuration
    micro_batch: Execution[NonNegativeInt | Literal["auto"]] = 0  # sequences per pass; 0: all
    gradient_checkpointing: Execution[bool] = False
    compile: Execution[bool] = False  # torch.compile
    attention: Execution[Literal["sdpa", "flex", "varlen"]] = "sdpa"  # flex, varlen: on CUDA
    kernels: Execution[Literal["torch", "liger"]] = "torch"  # liger: on CUDA, its own package
    checkpoint_every: Execution[int] = Field(100, gt=0)  # steps
    keep_last: Execution[int] = Field(2, gt=0)
    keep_every: Execution[int] = Field(0, ge=0)  # steps: these checkpoints stay; 0: none
    async_checkpoint: Execution[bool] = True  # write beside the training, from a copy in memory
    log_every: Execution[int] = Field(10, gt=0)
    eval_every: Execution[int] = Field(100, gt=0)
    sample_every: Execution[int] = Field(0, ge=0)  # steps between sample texts; 0: none
    profile: Execution[tuple[int, ...]] = ()  # steps to record with torch's profiler
    tensorboard: Execution[bool] = False
    prometheus_port: Execution[int] = Field(0, ge=0, le=65535)  # on loopback; 0: none
    max_restarts: Execution[int] = Field(3, ge=0)
    stall_s: Execution[float] = Field(30.0, gt=0)  # a rank that stands still so long is named


class Evaluate(Section):
    samples: Identity[int] = Field(4, ge=0)  # sample continuations
    sample_tokens: Identity[int] = Field(60, gt=0)
    temperature: Identity[float] = Field(0.8, ge=0)
    min_gain_bits: Identity[float] = Field(0.05, ge=0)  # bits per byte below the unigram model


class Export(Section):
    dtype: Identity[Literal["fp32", "bf16"]] = "fp32"


class Energy(Section):
    meter: Execution[Literal["auto", "counters", "codecarbon", "constant"]] = "auto"
    country: Execution[str] = "BRA"  # ISO 3166-1 alpha-3, for grams of CO2e per kWh
    interval_s: Execution[float] = Field(1.0, gt=0)
    cpu_watts: Execution[float | None] = None  # package power, where no counter can be read
    budget_kwh: Execution[float | None] = None  # warn at 80 %, checkpoint and stop at 100 %


class Ray(Section):
    address: Execution[str] = (
        ""  # empty: a local Ray on loopback, or the cluster of a submitted job
    )
    cpus: Execution[int] = Field(0, ge=0)  # 0: all of this machine
    object_store_mb: Execution[int] = Field(500, ge=80)


class Recipe(Section):
    format: Execution[int] = FORMAT
    name: Execution[str] = "run"
    language: Identity[str] = "por_Latn"
    language_pack: Identity[str] = ""  # a folder of your own; its content is hashed too
    seed: Identity[int] = 42
    sources: Identity[tuple[Source, ...]] = Field((), min_length=0)
    tokenized: Identity[tuple[Tokenized, ...]] = ()
    ingest: Identity[Ingest] = Ingest()
    clean: Identity[Clean] = Clean()
    exact: Identity[Exact] = Exact()
    langid: Identity[LangId] = LangId()
    filter: Identity[Filter] = Filter()
    neardup: Identity[NearDup] = NearDup()
    decontaminate: Identity[Decontaminate] = Decontaminate()
    split: Identity[Split] = Split()
    tokenizer: Identity[Tokenizer] = Tokenizer()
    pack: Identity[Pack] = Pack()
    model: Identity[Model] = Model()
    train: Identity[Train] = Train()
    evaluate: Identity[Evaluate] = Evaluate()
    export: Identity[Export] = Export()
    energy: Execution[Energy] = Energy()
    ray: Execution[Ray] = Ray()

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, value: str) -> str:
        if not value or any(c in value for c in "/\\ \n\t") or value.startswith("."):
            raise ValueError("a name is one word without spaces or slashes")
        return value

    @model_validator(mode="after")
    def _there_is_text(self) -> Recipe:
        if not self.sources and not self.tokenized:
            raise ValueError("a recipe needs `sources` (text) or `tokenized`")
        if self.tokenized and not self.tokenizer.path:
            raise ValueError("`tokenized` needs `tokenizer.path`, the tokenizer that made the ids")
        return self
