"""Language identification: what is looked at, both engines, models of others, paragraph mode."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from data_jobs.langid import identify, model_path
from data_jobs.language import langid_engine
from data_jobs.language.langid_engine import first_opinion, identify_views
from data_jobs.language.langid_paragraphs import paragraph_ranges
from data_jobs.language.langid_windows import line, windows
from data_jobs.language.spans import cut
from data_jobs.language.steady_fasttext import train_supervised
from data_jobs.language.train_langid import trainable
from mutirao.core.errors import RecipeError
from mutirao.core.schemas import read_ipc

POR = (
    "O pescador saiu de casa muito cedo e não voltou antes da noite, porque o vento do sul "
    "levou o barco para longe da praia. Quando chegou, contou à mulher tudo o que tinha visto. "
)
ENG = (
    "The fisherman left the house early in the morning and came back home at night, because "
    "the wind from the south had carried the boat far away from the beach where he lived. "
)
GRN = (
    "Opavave yvypóra ou ko yvy ári iñapytyĩmbaʼeyre ha eteĩcha dignidad ha derécho jeguerekópe. "
    "Ikatu rupi oikuaa añetéva ha añeteʼỹva, iporãva ha ivaíva, oikovaʼerã oñondivekuéra. "
)


@pytest.fixture(scope="session")
def model():
    from pathlib import Path

    return str(model_path("builtin", Path()))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """{form of the labels: path} of two fastText models that know Portuguese and English."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for por, eng in (("pt", "en"), ("por_Latn", "eng_Latn")):
        rows = [f"__label__{por} {line(POR.encode())}", f"__label__{eng} {line(ENG.encode())}"]
        (folder / "train.txt").write_text("\n".join(rows * 10))
        trained = train_supervised(
            str(folder / "train.txt"), 0, dim=16, bucket=600_000, minn=2, maxn=3, epoch=20, lr=0.3
        )
        found[por] = str(folder / f"{por}.bin")
        trained.save_model(found[por])
    return found


@pytest.mark.parametrize("engine", ["fast", "fasttext"])
def test_the_bundled_model_tells_languages_apart(model, engine):
    found = identify([POR, ENG, GRN, POR[:60]], model, engine)
    assert [label for label, _ in found] == ["por", "eng", "grn", "por"]
    assert all(0.5 < sure <= 1 and sure == round(sure, 3) for _, sure in found)


@pytest.mark.parametrize("engine", ["fast", "fasttext"])
def test_text_without_letters_is_undetermined(model, engine):
    texts = ["", "\n", "12 34 !!", ". . . . . .", "." * 5000, "\0", "   \u200b ", "😀" * 700]
    assert identify(texts, model, engine) == [("und", 0.0)] * len(texts)


@pytest.mark.parametrize("engine", ["fast", "fasttext"])
def test_odd_text_raises_nothing(model, engine):
    odd = ["a" * 2_000_000, "\x01\x02 texto", "a\nb\r\nc", "\ufffe\ufdd0 não", "g̃" * 900, "\ud800x"]
    assert len(identify(odd, model, engine)) == len(odd)


def test_control_characters_leave_it_to_fasttext(model):
    assert first_opinion(POR.encode() + b"\x01") is None
    assert identify([POR + "\x01"], model)[0][0] == "por"


@pytest.mark.parametrize("form", ["pt", "por_Latn"])
@pytest.mark.parametrize("engine", ["fast", "fasttext"])
def test_any_fasttext_model_by_path_gives_our_labels(tiny_models, form, engine):
    views = [POR.encode(), ENG.encode(), POR[:80].encode()]
    found = identify_views(views, tiny_models[form], engine)
    assert [label for label, _ in found] == ["por", "eng", "por"]


def test_labels_of_one_language_are_added_up():
    model = langid_engine.Model.__new__(langid_engine.Model)
    model.names = {"__label__zho_Hans": "zho", "__label__zho_Hant": "zho", "__label__jpn": "jpn"}

    class Raw:
        def predict(self, lines, k):
            import numpy as np

            return [tuple(model.names)], [np.array([0.3, 0.3, 0.4])]

    model.model = Raw()
    assert model.predict(["x"], 3) == [{"zho": pytest.approx(0.6), "jpn": pytest.approx(0.4)}]


def test_what_is_no_model_is_one_error(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"no model")
    with pytest.raises(RecipeError, match="Not a fastText model"):
        identify(["a"], str(tmp_path / "x.bin"))


def test_fasttext_is_not_asked_about_clear_text(model, monkeypatch):
    asked = []
    loaded = langid_engine.load(model)
    monkeypatch.setattr(loaded, "predict", lambda lines, top: asked.extend(lines) or [{"por": 1.0}])
    assert identify([POR * 3], model)[0][0] == "por" and not asked
    identify([POR[:60]], model)
    assert len(asked) == 1


def test_a_confusable_language_of_the_pack_is_asked_about(model, monkeypatch):
    asked = []
    loaded = langid_engine.load(model)
    monkeypatch.setattr(loaded, "predict", lambda lines, top: asked.extend(lines) or [{"eng": 1.0}])
    monkeypatch.setattr(langid_engine, "CONFUSABLE_SCORE", 10_000)
    view = (ENG * 3).encode()
    identify_views([view], model)
    assert not asked
    identify_views([view], model, "fast", frozenset({"eng"}))
    assert len(asked) == 1


def test_a_long_document_is_seen_at_its_start_middle_and_end():
    texts = ["início " * 2000 + "meio " * 2000 + "fim " * 2000, "curto", None, "é" * 4000 + "ã"]
    seen = [view.decode() for view in windows(pa.array(texts, pa.large_string()), 1200)]
    assert all(word in seen[0] for word in ("início", "meio", "fim"))
    assert seen[1:3] == ["curto", ""]
    assert 1190 <= len(seen[0].encode()) <= 1204 and 1190 <= len(seen[3].encode()) <= 1204


def test_windows_of_a_slice_are_those_of_its_rows():
    column = pa.array([f"texto {k} " * 300 for k in range(9)], pa.large_string())
    assert windows(column.slice(3, 4), 600) == windows(column, 600)[3:7]


def test_a_document_that_opens_in_another_language_is_judged_by_all_of_it(model):
    assert identify([ENG + POR * 12], model)[0][0] == "por"


def test_the_language_guarani_is_found_by_any_of_its_codes(stages, helpers):
    rows = helpers.jsonl([{"text": GRN * 3}, {"text": POR * 3}])
    for code in ("gug", "gn", "grn_Latn"):
        done = stages({f"{code}.jsonl": rows}, language=code, until="langid")
        found = read_ipc(done["langid"].paths("langid-")[0], "decision.langid").to_pylist()
        assert [(row["lang"], row["reason"]) for row in found] == [
            ("grn", None),
            ("por", "language"),
        ]
        assert done["langid"].content["info"]["keep"] == ["grn", "gug"]
        for path in (*done["clean"].directory.iterdir(), *done["langid"].directory.iterdir()):
            path.unlink()


def test_ranges_cover_the_text_and_join_short_lines():
    text = ("título\n\n" + POR + "\n\nsim\nnão\n" + ENG + "\nfim").encode()
    ranges = paragraph_ranges(text)
    assert b"".join(text[a:b] for a, b in ranges) == text
    firsts = [text[a:b].decode().split()[0] for a, b in ranges]
    assert firsts == ["título", "sim"]
    after = (POR + "\n12\n\n" + ENG).encode()
    assert [after[a:b].endswith(b"12\n\n") for a, b in paragraph_ranges(after)] == [True, False]
    assert [paragraph_ranges(t) for t in (b"", b"\n\n", b"ab")] == [[], [(0, 2)], [(0, 2)]]


def mixed(stages, helpers, rows, **fields):
    config = {"mode": "paragraph", **fields}
    return stages({"m.jsonl": helpers.jsonl(rows)}, langid=config, until="langid")


def test_foreign_paragraphs_are_left_out_of_a_mixed_document(stages, helpers):
    text = f"{POR}\n\n{ENG}\n\n{POR}{POR}\n12\n\n{ENG}".strip()
    done = mixed(stages, helpers, [{"text": text}, {"text": f"{ENG}\n\n{ENG}\n\n{POR}"}])
    found = read_ipc(done["langid"].paths("langid-")[0], "decision.langid").to_pylist()
    read = read_ipc(done["clean"].paths("text-")[0], "text").column("text")[0].as_py()
    assert (found[0]["lang"], found[0]["reason"]) == ("por", None)
    assert 0.55 < found[0]["share"] < 0.7
    kept = cut(read.encode(), found[0]["spans"]).decode()
    assert "fisherman" not in kept and kept.count("pescador") == 3 and "12" in kept
    assert kept == kept.strip()
    assert (found[1]["lang"], found[1]["reason"], found[1]["spans"]) == ("eng", "language", None)


def test_an_instruction_document_is_never_cut(stages, helpers):
    messages = [
        {"role": "user", "content": f"Traduza: {ENG}"},
        {"role": "assistant", "content": POR * 2},
    ]
    source = [{"path": "m.jsonl", "kind": "instruction"}]
    rows = helpers.jsonl([{"messages": messages}])
    done = stages({"m.jsonl": rows}, sources=source, langid={"mode": "paragraph"}, until="langid")
    (row,) = read_ipc(done["langid"].paths("langid-")[0], "decision.langid").to_pylist()
    assert row["share"] < 1 and row["spans"] is None and row["reason"] is None


def test_the_kept_text_is_without_the_foreign_paragraphs(stages, helpers):
    rows = [{"text": f"{POR}Caso {k}. {POR}\n\n{ENG}\n\n{POR}{k * 37}."} for k in range(12)]
    done = stages(
        {"m.jsonl": helpers.jsonl(rows)},
        langid={"mode": "paragraph"},
        filter={"thresholds": {"min_words": 1}},
        neardup={"threshold": 1.0},
        split={"heldout": 0.2},
        until="split",
    )
    tables = [read_ipc(path, "kept") for path in done["split"].paths()]
    texts = [text for table in tables for text in table.column("text").to_pylist()]
    assert texts and not any("fisherman" in text for text in texts)
    counts = done["split"].counts
    assert counts["text_bytes_out"] == sum(len(text.encode()) for text in texts)
    assert counts["text_bytes_in"] > counts["text_bytes_out"] + 12 * len(ENG) - 50


def test_share_alike_texts_are_not_trained_on():
    licenses = ["CC-BY-2.0-FR", "Public domain", "CC0-1.0 (corpus)", "Apache-2.0"]
    assert all(map(trainable, licenses))
    assert not any(map(trainable, ["CC-BY-SA-4.0", "CC-BY-NC-4.0", "", "All rights reserved"]))


def test_the_model_card_names_the_model_that_ships():
    from importlib import resources

    from mutirao.core.files import sha256_file

    assets = resources.files("mutirao.assets")
    card = (assets / "README.md").read_text(encoding="utf-8")
    for name in ("lid.ftz", "varieties_por.npz"):
        with resources.as_file(assets / name) as path:
            assert sha256_file(path) in card
            assert path.stat().st_size < 50_000_000


def test_the_manifest_names_model_and_keep(stages, helpers):
    from pathlib import Path

    from mutirao.core.files import sha256_file

    done = stages({"a.jsonl": helpers.jsonl([{"text": POR * 3}])}, until="langid")
    info = done["langid"].content["info"]
    assert info["model_sha256"] == sha256_file(model_path("builtin", Path()))
    assert json.dumps(info["languages"]) == '{"por": 1}'
