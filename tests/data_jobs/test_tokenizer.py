"""Tokenizers: three kinds, existing ones, what is refused, fertility, and the stage as a whole."""

from __future__ import annotations

import gzip
import hashlib
import json
from importlib import resources

import pyarrow as pa
import pytest

from data_jobs import tokenizer as stage
from data_jobs.shards import write_table
from data_jobs.tokens import engines, fertility
from data_jobs.tokens.awkward_texts import awkward_texts
from data_jobs.tokens.existing import read_existing
from data_jobs.tokens.train_bpe import cut_long_words, train_bpe
from data_jobs.tokens.train_sentencepiece import train_sentencepiece
from mutirao.core.errors import RecipeError
from mutirao.core.manifest import Manifest
from mutirao.core.recipe import Recipe
from mutirao.core.schemas import KEPT
from mutirao.run.summary import WORDS

KINDS = ("bpe", "sentencepiece-bpe", "sentencepiece-unigram")
VOCABULARY, SPARE = 1_200, 64


@pytest.fixture(scope="module")
def texts():
    """100 kB of the bundled sample: Portuguese documentation."""
    file = resources.files("mutirao") / "sample" / "docs.jsonl.gz"
    rows = [json.loads(line)["text"] for line in gzip.decompress(file.read_bytes()).splitlines()]
    kept, size = [], 0
    for row in rows:
        kept.append(row)
        size += len(row.encode())
        if size > 100_000:
            break
    return kept


def trained(kind, texts, vocab_size=VOCABULARY, spare_ids=SPARE):
    """(tokenizers.Tokenizer, the library's model or nothing)"""
    if kind == "bpe":
        return train_bpe(iter(texts), vocab_size, spare_ids), b""
    return train_sentencepiece(iter(texts), kind, vocab_size, spare_ids)


@pytest.fixture(scope="module", params=KINDS)
def made(request, texts, tmp_path_factory):
    """(kind, tokenizers.Tokenizer, its folder) of each kind, once."""
    folder = tmp_path_factory.mktemp(request.param)
    model, proto = trained(request.param, texts)
    (folder / "library.proto").write_bytes(proto)
    list(stage.write_tokenizer(folder, model.to_str(), stage.own_config()))
    model.encode_special_tokens = True
    return request.param, model, folder


def odd_texts(model):
    pieces = [model.decode([k]) for k in range(SPARE + 260, model.get_vocab_size(), 5)]
    return awkward_texts(["<|endoftext|>", "<|spare_3|>", "<unk>", "<0x0A>"], pieces)


def test_any_text_comes_back_as_it_was(made, texts):
    _, model, _ = made
    for text in [*odd_texts(model), *texts]:
        ids = model.encode(text, add_special_tokens=False).ids
        assert model.decode(ids, skip_special_tokens=False) == text
        assert min(ids, default=SPARE + 1) > SPARE, "special tokens in a text stay text"


def test_transformers_gives_the_ids_of_our_encoding(made, texts):
    from transformers import AutoTokenizer

    kind, model, folder = made
    theirs = AutoTokenizer.from_pretrained(folder)
    encoder = engines.load(folder)
    assert encoder.name == ("gigatoken" if kind == "bpe" else "huggingface")
    assert theirs.eos_token_id == encoder.eos_id == 0 and len(theirs) == encoder.vocab_size
    assert model.token_to_id("<|spare_63|>") == 64
    plain = [text for text in [*odd_texts(model), *texts] if "<|" not in text]
    plain = [text for text in plain if "<unk>" not in text]
    ids, offsets = encoder.encode(pa.array(plain, pa.large_string()))
    for k, text in enumerate(plain):
        assert theirs(text)["input_ids"] == ids[offsets[k] : offsets[k + 1]].tolist()


def test_pieces_are_those_of_the_sentencepiece_library(made, texts):
    import sentencepiece

    kind, model, folder = made
    if kind == "bpe":
        assert (folder / "library.proto").read_bytes() == b""
        return
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "library.proto"))
    compared = [t for t in [*odd_texts(model), *texts] if "\u2581" not in t and "\0" not in t]
    same = 0
    for text in compared:
        theirs = [number + SPARE + 1 for number in library.encode(text)]
        ours = model.encode(text, add_special_tokens=False).ids
        same += theirs == ours
        assert len(theirs) == len(ours), "at most a tie of unigram scores"
    assert same == len(compared) if kind.endswith("bpe") else same > 0.99 * len(compared)


def test_the_same_texts_give_the_same_bytes(made, texts):
    kind, _, folder = made
    again, proto = trained(kind, texts)
    assert (folder / "tokenizer.json").read_text() == again.to_str()
    assert (folder / "library.proto").read_bytes() == proto
    assert json.loads(again.to_str())["added_tokens"][0]["content"] == "<|endoftext|>"


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_word_neither_stops_training_nor_encoding(kind, texts):
    word = "ab1cd2é" * 260_000  # 2 MB: where time or memory is quadratic, this takes hours
    model, _ = trained(kind, [*texts[:20], word[:200_000], "x" * 100_000], 500)
    ids, _ = engines.HuggingFace(model, 0).encode(pa.array([word], pa.large_string()))
    assert model.decode(ids.tolist(), skip_special_tokens=False) == word


def test_long_words_are_cut_without_losing_a_letter():
    text = "a" * 250 + " b " + "c" * 100
    assert cut_long_words(text) == f"{'a' * 100} {'a' * 100} {'a' * 50} b {'c' * 100}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_without_room_for_the_bytes_is_refused(kind, tmp_path):
    recipe = Recipe(sources=[{"path": "x"}], tokenizer={"kind": kind, "vocab_size": 300})
    with pytest.raises(RecipeError, match="too small"):
        stage.tokenizer_assets(recipe, tmp_path)


# Existing tokenizers


def test_an_existing_tokenizer_is_taken_as_it_is(made, tmp_path, helpers):
    _, _, folder = made
    recipe = Recipe(sources=[{"path": "x"}], tokenizer={"path": str(folder)})
    assets = stage.tokenizer_assets(recipe, tmp_path)
    data = (folder / "tokenizer.json").read_bytes()
    assert assets["tokenizer.json"] == hashlib.sha256(data).hexdigest() and len(assets) == 3
    result = stage.run(helpers.make_job(tmp_path, "tokenizer", recipe, {}))
    written = tmp_path / "store" / "tokenizer" / "key" / "tokenizer.json"
    assert written.read_bytes() == data
    assert result.info == {"kind": "existing", "vocab_size": VOCABULARY, "eos_id": 0}
    (tmp_path / "folder of the command").mkdir()
    (tmp_path / "folder of the command" / "tokenizer").symlink_to(folder)
    recipe = Recipe(sources=[{"path": "x"}], tokenizer={"path": "folder of the command"})
    assert stage.tokenizer_assets(recipe, tmp_path) == assets


def test_code_and_classes_of_an_existing_tokenizer_are_left_behind(made, tmp_path):
    _, _, folder = made
    data = (folder / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(data)
    config = {"auto_map": {"AutoTokenizer": ["x.Y", None]}, "tokenizer_class": "Y"}
    config |= {"chat_template": "{{ x }}", "eos_token": {"content": "<|spare_2|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = read_existing(tmp_path)
    assert found.config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "auto_map" not in found.config and found.config["chat_template"] == "{{ x }}"
    assert (found.eos.token, found.eos.id) == ("<|spare_2|>", 3)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity"])
def test_a_sentencepiece_model_keeps_its_ids(kind, rule, texts, tmp_path):
    import sentencepiece

    path = tmp_path / "their.model"
    with path.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text[:2_000] for text in texts[:20]),
            model_writer=stream,
            model_type=kind,
            vocab_size=600,
            byte_fallback=True,
            normalization_rule_name=rule,
            minloglevel=2,
        )
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    encoder = engines.load(path)
    assert encoder.eos_id == library.eos_id() == 2
    for text in [*texts[:20], "  dois   espaços \n  e linha ", ""]:
        ids, _ = encoder.encode(pa.array([text], pa.large_string()))
        assert ids.tolist() == library.encode(text)


def test_what_is_no_tokenizer_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "b.model").write_bytes(b"\x93NUMPY or anything")
    (tmp_path / "c.json").write_bytes(b"\xff\xfe\x00")
    for name in ("empty", "a.json", "b.model", "c.json", "not-there"):
        for field in ({"path": name}, {"compare": [name]}):
            recipe = Recipe(sources=[{"path": "x"}], tokenizer=field)
            with pytest.raises(RecipeError) as error:
                stage.tokenizer_assets(recipe, tmp_path)
            assert name in error.value.where and error.value.hint
            assert error.value.code == "no-tokenizer"


# Fertility and the stage


def kept(directory, name, rows):
    """A kept shard: rows of (text, source)."""
    table = pa.table(
        {
            "id": [hashlib.md5(text.encode()).digest() for text, _ in rows],
            "text": [text for text, _ in rows],
            "source": [source for _, source in rows],
        }
    )
    for column in KEPT:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(rows), column.type))
    table = pa.table([table.column(c.name).cast(c.type) for c in KEPT], schema=KEPT)
    return write_table(directory, name, table)


def split_manifest(directory, train, heldout):
    directory.mkdir()
    parts = [
        kept(directory, f"{side}-{k:05d}.arrow", rows)
        for side, shards in (("train", train), ("heldout", heldout))
        for k, rows in enumerate(shards)
    ]
    size = sum(len(text.encode()) for rows in train for text, _ in rows)
    info = {"train": {"text_bytes": size}}
    content = {"stage": "split", "parts": [vars(p) for p in parts], "counts": {}, "info": info}
    return Manifest(directory, content, {})


def test_fertility_counts_words_bytes_and_single_bytes(tmp_path):
    model = train_bpe(iter(["a casa " * 500]), 330, 64)
    model.encode_special_tokens = True
    encoder = engines.HuggingFace(model, 0)
    rows = {"x": ["a casa"], "y": ["ção"]}
    found = fertility.measure(encoder, fertility.byte_lengths(model), rows)
    tokens = {name: model.encode(text[0]).tokens for name, text in rows.items()}
    assert tokens == {"x": ["a", "Ġcasa"], "y": ["Ã", "§", "Ã", "£", "o"]}
    assert found["sources"]["x"] == {
        "tokens_per_word": 1.0,
        "bytes_per_token": 3.0,
        "single_byte_share": 0.5,
    }
    assert found["sources"]["y"]["tokens_per_word"] == 5.0
    assert found["single_byte_share"] == round(6 / 7, 4)
    assert found["bytes_per_token"] == round(11 / 7, 4)


def test_bytes_of_fallback_tokens_are_one_byte(texts):
    model, _ = trained("sentencepiece-bpe", texts[:20], 700)
    lengths = fertility.byte_lengths(model)
    ids = model.encode("日 à").ids
    assert [int(lengths[k]) for k in ids[:3]] == [1, 1, 1]
    assert int(lengths[ids].sum()) == len("日 à".encode())


def test_each_source_is_measured_on_so_much_text(tmp_path):
    rows = [("mar " * 50, "a")] * 30 + [("sol " * 50, "b")] * 2
    split = split_manifest(tmp_path / "s", [], [rows, rows])
    found = fertility.sample(split.paths("heldout-"), source_bytes=1_000)
    assert {name: len(texts) for name, texts in found.items()} == {"a": 5, "b": 4}


def test_the_stage_reports_unseen_text_beside_other_tokenizers(made, texts, tmp_path, helpers):
    kind, _, folder = made
    rows = [(text, f"s{k % 2}") for k, text in enumerate(texts)]
    split = split_manifest(tmp_path / "split", [rows[:12]], [rows[12:24]])
    recipe = Recipe(
        sources=[{"path": "x"}],
        tokenizer={"kind": kind, "vocab_size": 500, "compare": [str(folder)]},
    )
    results = [
        stage.run(helpers.make_job(tmp_path / n, "tokenizer", recipe, {"split": split}))
        for n in ("one", "two")
    ]
    info = results[0].info
    assert info == results[1].info and results[0].parts == results[1].parts
    assert (info["vocab_size"], info["spare_ids"], info["kind"]) == (500, 64, kind)
    assert WORDS["tokenizer"](results[0].counts, info).endswith(" tokens per word")
    assert set(info["sources"]) == {"s0", "s1"} and 1 < info["tokens_per_word"] < 5
    other = results[0].notes["compared"][str(folder)]
    assert other["tokens_per_word"] < info["tokens_per_word"], "more ids, fewer tokens"
    again = stage.run(helpers.make_job(tmp_path / "one", "tokenizer", recipe, {"split": split}))
    assert again.info == info and again.parts == results[0].parts


def test_the_sample_is_chosen_by_id_wherever_a_document_stands(tmp_path):
    rows = [(f"texto {k} " * 20, "a") for k in range(2_000)]
    size = sum(len(text.encode()) for text, _ in rows)
    one = split_manifest(tmp_path / "one", [rows[:1_500], rows[1_500:]], [])
    two = split_manifest(tmp_path / "two", [rows[::-1]], [])
    chosen = [set(stage.sample(m.paths("train-"), size // 4, size, 42)) for m in (one, two)]
    other = set(stage.sample(one.paths("train-"), size // 4, size, 43))
    assert chosen[0] == chosen[1] and chosen[0] != other
    assert 400 < len(chosen[0]) < 600 and 400 < len(other) < 600
    assert len(set(stage.sample(one.paths("train-"), size, size, 42))) == 2_000
