"""A SentencePiece `.model` of someone else, as a Hugging Face fast tokenizer with the same ids.

In: the file. Out: the text of a tokenizer.json, and the name of the end-of-text token. The
library's normalisation table, dummy prefix and squeezing of spaces are kept as they are, so a model
that has them does not give a text back letter by letter. The result is checked against the library
on ordinary texts; a model that it can't be made equal to is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_jobs.tokens.train_sentencepiece import MIN_SCORE, SPACE, merges_of, scored_pieces
from mutirao.core.errors import RecipeError

KINDS = {1: "unigram", 2: "bpe"}
CHECKED = (
    "Era uma vez, numa aldeia do Norte, um pescador que não sabia nadar.",
    "O preço é de R$ 1.234,56 (à vista); veja https://exemplo.org/página?x=1.",
    "Mba'éichapa reiko? Ñandéve g\u0303uarã.  The end of it... 100% 日本 🙂",
    "def f(x):\n    return x ** 2\n",
)


def convert(file: Path) -> tuple[str, str]:
    """(tokenizer.json, eos piece or ""). Raises RecipeError for another kind of file."""
    data = file.read_bytes()
    proto = _proto(data, file)
    kind = KINDS.get(proto.trainer_spec.model_type)
    if kind is None:
        raise _refused(file, "it is of the kind char or word")
    tokenizer = _tokenizer(data, proto, kind)
    _check(tokenizer, data, file)
    eos = proto.trainer_spec.eos_piece
    return tokenizer.to_str(), eos if tokenizer.token_to_id(eos) is not None else ""


def _proto(data: bytes, file: Path) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2  # its names are made when it is imported
    proto = messages.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise _refused(file, "it is not a SentencePiece model") from error
    if not proto.pieces:
        raise _refused(file, "it is not a SentencePiece model")
    return proto


def _tokenizer(data: bytes, proto: Any, kind: str) -> Any:
    from tokenizers import AddedToken, Tokenizer, models

    scores = scored_pieces(data, SPACE)
    unknown, fallback = proto.trainer_spec.unk_id, proto.trainer_spec.byte_fallback
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram(scores, unknown, byte_fallback=fallback))
    else:
        ids = {piece: number for number, (piece, _) in enumerate(scores)}
        merges = merges_of([pair for pair in scores if pair[1] > MIN_SCORE])
        name = scores[unknown][0]
        model = models.BPE(ids, merges, unk_token=name, fuse_unk=True, byte_fallback=fallback)
        tokenizer = Tokenizer(model)
    _around(tokenizer, proto.normalizer_spec)
    unknown_or_control, user_defined = (2, 3), 4
    for piece in proto.pieces:
        if piece.type in unknown_or_control:
            token = AddedToken(piece.piece, special=True, normalized=False)
            tokenizer.add_special_tokens([token])
        elif piece.type == user_defined:
            tokenizer.add_tokens([AddedToken(piece.piece, normalized=False)])
    return tokenizer


def _around(tokenizer: Any, spec: Any) -> None:
    """What the library does to a text before, and to pieces after."""
    from tokenizers import Regex, decoders, normalizers

    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        ends, runs = Regex(r"\A +| +\z"), Regex(" {2,}")
        steps += [normalizers.Replace(ends, ""), normalizers.Replace(runs, " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    tokenizer.normalizer = normalizers.Sequence(steps)
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if spec.add_dummy_prefix:
        back.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(back)


def _check(tokenizer: Any, data: bytes, file: Path) -> None:
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in CHECKED:
        if tokenizer.encode(text, add_special_tokens=False).ids != library.encode(text):
            raise _refused(file, f"its pieces of {text[:30]!r} would not be the library's")


def _refused(file: Path, why: str) -> RecipeError:
    hint = "Convert it with transformers to a tokenizer.json, and name that."
    return RecipeError(
        f"The SentencePiece model can't be used: {why}", str(file), hint, "no-tokenizer"
    )
