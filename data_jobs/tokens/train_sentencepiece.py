"""SentencePiece BPE and unigram: trained by the library, run as a Hugging Face fast tokenizer.

In: an iterator of texts. Out: a `tokenizers.Tokenizer` with ids 0 `<|endoftext|>`, the spare ids,
then the library's pieces in its order (`<unk>`, 256 bytes, pieces). It gives the library's pieces
for any text, with one difference that makes it lossless: the library writes a space as U+2581 and
can't tell it from that sign in a text; here a piece holds the space itself, and U+2581 becomes its
three bytes. The text is not normalised, and what is not in the alphabet becomes bytes.
Sources: Kudo and Richardson 2018 (SentencePiece), Kudo 2018 (unigram).
Memory: the library holds the sample (`tokenizer.sample_bytes`): about 10 times its bytes for BPE,
24 times for unigram; a larger corpus does not change it.
"""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Iterator
from typing import Any

from data_jobs.tokens.train_bpe import check_vocabulary, cut_long_words, special_tokens

SPACE = "\u2581"  # the library's sign for a space
UNKNOWN = "<unk>"
THREADS = 4  # fixed: unigram sums its counts in an order that depends on it
SENTENCE_BYTES = 4_000  # the library leaves out longer lines
MIN_SCORE = -1e6  # of a piece that is never taken from a text: worse than any path of single signs
# Single signs that are always pieces: with them a text such as `<0x0A>` or `<|endoftext|>` can
# always be written without the byte or special token of that name.
REQUIRED = string.ascii_letters + string.digits + string.punctuation


def train_sentencepiece(
    texts: Iterable[str], kind: str, vocab_size: int, spare_ids: int
) -> tuple[Any, bytes]:
    """kind: `sentencepiece-bpe` or `sentencepiece-unigram` -> (fast tokenizer, the library's
    model). Raises RecipeError where the vocabulary is too small."""
    kind = kind.removeprefix("sentencepiece-")
    model = train_model(texts, kind, vocab_size, spare_ids)
    return fast_tokenizer(model, kind, special_tokens(spare_ids)), model


def train_model(texts: Iterable[str], kind: str, vocab_size: int, spare_ids: int) -> bytes:
    """The library's model (a serialised ModelProto), the same bytes for the same texts."""
    import sentencepiece

    check_vocabulary(vocab_size, spare_ids, kind)
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(texts),
        model_writer=stream,
        model_type=kind,
        vocab_size=vocab_size - len(special_tokens(spare_ids)),
        hard_vocab_limit=False,  # a small text gives fewer pieces
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        character_coverage=0.9995,
        required_chars=REQUIRED,
        max_sentence_length=SENTENCE_BYTES + 200,
        input_sentence_size=0,  # all: the sample is ours
        shuffle_input_sentence=False,
        num_threads=THREADS,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    return stream.getvalue()


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """The lines of the texts, long ones cut at spaces: the library learns inside a line only."""
    for text in texts:
        for line in cut_long_words(text).split("\n"):
            while len(line.encode()) > SENTENCE_BYTES:
                cut = line.rfind(" ", 1, SENTENCE_BYTES // 4)
                yield line[: cut if cut > 0 else SENTENCE_BYTES // 4]
                line = line[cut if cut > 0 else SENTENCE_BYTES // 4 :]
            if line:
                yield line


def fast_tokenizer(model: bytes, kind: str, specials: list[str]) -> Any:
    """A `tokenizers.Tokenizer` that gives the pieces of the library's model.

    No piece holds a space but as its first sign, so cutting the text before each space changes
    nothing, and a long text costs no more than its words.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    scores = [(token, MIN_SCORE) for token in specials] + scored_pieces(model)
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram(scores, len(specials), byte_fallback=True))
    else:
        ids = {piece: number for number, (piece, _) in enumerate(scores)}
        assert len(ids) == len(scores), "pieces are distinct"
        merges = merges_of([pair for pair in scores if pair[1] > MIN_SCORE])
        tokenizer = Tokenizer(
            models.BPE(ids, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" [^ ]*|[^ ]+"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    added = [AddedToken(token, special=True, normalized=False) for token in (*specials, UNKNOWN)]
    tokenizer.add_special_tokens(added)
    return tokenizer


def scored_pieces(model: bytes, space: str = " ") -> list[tuple[str, float]]:
    """(piece, score) by the library's id, with `space` for its sign of a space; MIN_SCORE where a
    piece does not stand for text: bytes, `<unk>`, control signs."""
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = []
    for number in range(library.get_piece_size()):
        tests = (library.is_byte, library.is_unknown, library.is_control, library.is_unused)
        score = MIN_SCORE if any(test(number) for test in tests) else library.get_score(number)
        pieces.append((library.id_to_piece(number).replace(SPACE, space), score))
    return pieces


def merges_of(scores: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Each way to put a piece together from two others, the best score first: the library joins
    the two neighbours whose joined piece has the best score."""
    learned = sorted(scores, key=lambda pair: -pair[1])
    rank = {piece: number for number, (piece, _) in enumerate(learned)}
    merges = []
    for piece, _ in learned:
        pairs = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        pairs = [pair for pair in pairs if pair[0] in rank and pair[1] in rank]
        merges += sorted(pairs, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    return merges
