"""Engines: the fast one gives Hugging Face's ids for any text, or is not taken."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from data_jobs.tokenizer import own_config, write_tokenizer
from data_jobs.tokens import engines
from data_jobs.tokens.awkward_texts import awkward_texts
from data_jobs.tokens.train_bpe import train_bpe
from mutirao.core.errors import EnvironmentProblem, RecipeError, Stopped

TEXTS = [
    "Não sei se o pescador volta da praia antes da chuva, disse ela.\n\n O mar está bravo!",
    "A Câmara aprovou o projeto nº 1.234/2021; veja https://exemplo.org/página?x=1.",
    "def f(x):\n    return x ** 2  # comentário\n",
    "",
    "日本語のテキスト 🙂 <|endoftext|> <|spare_1|> fim",
] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    model = train_bpe(iter(TEXTS), 400, 8)
    list(write_tokenizer(path, model.to_str(), own_config()))
    return path


def large(texts):
    return pa.array(texts, pa.large_string())


def test_both_engines_give_the_same_ids_and_places(folder):
    fast, slow = engines.load(folder, "fast"), engines.load(folder, "huggingface")
    assert (fast.name, slow.name) == ("gigatoken", "huggingface")
    texts = large(awkward_texts(["<|endoftext|>", "<|spare_7|>"], ["casa", " da", "ção"]) + TEXTS)
    for encoder in (fast, slow):
        assert (encoder.vocab_size, encoder.eos_id, encoder.reason) == (400, 0, "")
    (ids, offsets), (want, places) = fast.encode(texts), slow.encode(texts)
    assert ids.dtype == want.dtype == np.uint16 and offsets.dtype == np.int64
    assert np.array_equal(ids, want) and np.array_equal(offsets, places)
    assert len(offsets) == len(texts) + 1 and offsets[-1] == len(ids)


@pytest.mark.parametrize("engine", ["fast", "huggingface"])
def test_special_tokens_written_in_a_text_stay_text(folder, engine):
    encoder = engines.load(folder, engine)
    text = "a<|endoftext|>b <|spare_3|><|endoftext|>"
    ids, _ = encoder.encode(large([text]))
    assert ids.min() > 8
    read = engines.read_existing(folder).tokenizer
    assert read.decode(ids.tolist(), skip_special_tokens=False) == text


@pytest.mark.parametrize("engine", ["fast", "huggingface"])
def test_empty_null_sliced_and_chunked_arrays(folder, engine):
    encoder = engines.load(folder, engine)
    ids, offsets = encoder.encode(large(["x", None, "", "mar"]).slice(1))
    assert offsets.tolist()[:3] == [0, 0, 0] and offsets[3] == len(ids) > 0
    chunked = pa.chunked_array([large(["mar"]), large([]), large(["mar"])])
    twice, places = encoder.encode(chunked)
    assert twice.tolist() == ids.tolist() * 2 and places.tolist() == [0, len(ids), 2 * len(ids)]
    none, places = encoder.encode(large([]))
    assert len(none) == 0 and places.tolist() == [0]


def test_a_word_of_2_mb_has_the_same_ids(folder):
    fast, slow = engines.load(folder, "fast"), engines.load(folder, "huggingface")
    letters = np.random.default_rng(1).integers(97, 123, 2_000_000, dtype=np.uint8)
    text = large([letters.tobytes().decode()])
    assert np.array_equal(fast.encode(text)[0], slow.encode(text)[0])


def test_the_table_of_words_is_made_anew_and_changes_nothing(folder, monkeypatch):
    encoder = engines.load(folder, "fast")
    want = encoder.encode(large(TEXTS))[0]
    monkeypatch.setattr(engines, "RENEW_BYTES", 10)
    before = encoder._encode
    again = [encoder.encode(large(TEXTS))[0] for _ in range(3)]
    assert encoder._encode is not before
    assert all(np.array_equal(ids, want) for ids in again)


class Wrong(engines.Gigatoken):
    """A fast engine with a fault: one id in texts that hold a rare sign."""

    def encode(self, texts):
        ids, offsets = super().encode(texts)
        for k, text in enumerate(texts.to_pylist()):
            if text and "½" in text:
                ids[offsets[k]] += 1
        return ids, offsets


class PanicException(BaseException):
    """What a panic in Rust looks like here."""


class Broken(engines.Gigatoken):
    def _renew(self):
        raise PanicException("panic at the start")


class Fragile(engines.Gigatoken):
    """Has the right ids only because Hugging Face stands in."""

    def _renew(self):
        super()._renew()
        encode = self._encode

        def fragile(row):
            if b"\0" in row:
                raise ValueError("panic at a sign")
            return encode(row)

        self._encode = fragile


@pytest.mark.parametrize(
    "fault, words", [(Wrong, "other ids"), (Broken, "panic"), (Fragile, "panic")]
)
def test_an_engine_that_differs_or_fails_is_not_taken(folder, monkeypatch, fault, words):
    monkeypatch.setattr(engines, "Gigatoken", fault)
    encoder = engines.load(folder, "auto")
    assert encoder.name == "huggingface" and words in encoder.reason
    with pytest.raises(EnvironmentProblem, match=words):
        engines.load(folder, "fast")


def test_without_the_package_hugging_face_stands_in(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gigatoken", None)
    encoder = engines.load(folder)
    assert encoder.name == "huggingface" and "not installed" in encoder.reason


def test_an_engine_that_stops_in_the_middle_is_stood_in_for(folder):
    encoder = engines.load(folder, "fast")
    want = encoder.encode(large(TEXTS))

    def panic(row):
        raise PanicException("panic")

    encoder._encode = panic
    ids, offsets = encoder.encode(large(TEXTS))
    assert np.array_equal(ids, want[0]) and np.array_equal(offsets, want[1])
    assert "panic" in encoder.reason


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Stopped])
def test_a_stop_of_ours_is_no_fault_of_the_engine(folder, stop):
    encoder = engines.load(folder, "fast")

    def stopped(row):
        raise stop("enough")

    encoder._encode = stopped
    with pytest.raises(stop):
        encoder.encode(large(TEXTS))


def test_a_file_that_asks_for_cutting_and_filling_loses_no_token(folder, tmp_path):
    config = json.loads((folder / "tokenizer.json").read_text())
    config["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst"}
    config["truncation"]["stride"] = 0
    config["padding"] = {"strategy": {"Fixed": 30}, "direction": "Right", "pad_id": 0}
    config["padding"] |= {"pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "x"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    want = engines.load(folder, "huggingface").encode(large(TEXTS))
    for engine in ("huggingface", "fast"):
        ids, offsets = engines.load(tmp_path, engine).encode(large(TEXTS))
        assert np.array_equal(ids, want[0]) and np.array_equal(offsets, want[1])


def test_wide_vocabularies_have_wide_ids(folder, tmp_path):
    config = json.loads((folder / "tokenizer.json").read_text())
    config["model"]["vocab"]["zzzz"] = 65_536
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    for engine in ("huggingface", "fast"):
        encoder = engines.load(tmp_path, engine)
        assert encoder.vocab_size == 65_537
        assert encoder.encode(large(["mar"]))[0].dtype == np.uint32


def test_no_end_of_text_is_said_with_the_cure(folder, tmp_path):
    config = json.loads((folder / "tokenizer.json").read_text())
    config["added_tokens"] = []
    for name in ("<|endoftext|>",):
        config["model"]["vocab"]["<removed>"] = config["model"]["vocab"].pop(name)
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(RecipeError, match="no end-of-text") as error:
        engines.load(tmp_path)
    assert "eos_token" in error.value.hint
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<removed>"}}')
    assert engines.load(tmp_path).eos_id == 0
