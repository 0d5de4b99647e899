"""Model scores of the filter: training, scoring, caching, thresholds."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from data_jobs.language.steady_fasttext import train_supervised
from data_jobs.quality.scores import WINDOW, WINDOWS, load_model, score, windows
from data_jobs.quality.train_score import auc_interval, main, read_labels, report, roc_auc, train
from mutirao.core.errors import DataError, RecipeError
from mutirao.core.schemas import read_ipc

RUDE, KIND = "burro idiota feio", "obrigado amigo bonito"


def rows(count: int = 200) -> list[tuple[str, bool]]:
    dice = random.Random(1)
    found = []
    for number in range(count):
        rude = number % 2 == 0
        own = (RUDE if rude else KIND).split()
        found.append((" ".join(dice.choice(own) + " de que" for _ in range(8)), rude))
    return found


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toxic.bin"
    train(rows(), path)
    return path


def test_training_again_in_the_same_process_gives_the_same_bytes(model_file, tmp_path):
    train(rows(), tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == model_file.read_bytes()


def test_a_model_tells_its_labels_apart(model_file):
    model = load_model(str(model_file))
    found = score(model, [RUDE, KIND, "", "x" * 50_000, f"{RUDE}\n{RUDE}"])
    assert found[0] > 0.5 > found[1] and found[4] > 0.5
    assert ((found >= 0) & (found <= 1)).all()
    assert report(model, rows(100))["auc"] == 1.0


def test_a_long_text_is_seen_in_windows_from_its_start_to_its_end():
    text = "a " * 10_000 + "fim"
    seen = windows(text)
    assert len(seen) == WINDOWS and seen[-1].endswith("fim")
    assert all(len(one) <= WINDOW and "\n" not in one for one in windows("a\nb\n" * 600))
    assert windows("") == [""] and windows("Um\nDois") == ["um dois"]


def test_the_area_under_the_curve_is_the_share_of_ordered_pairs():
    dice = np.random.default_rng(3)
    labels, scores = dice.random(60) < 0.4, dice.integers(0, 9, 60) / 9
    pairs = [(p > n) + (p == n) / 2 for p in scores[labels] for n in scores[~labels]]
    assert roc_auc(labels, scores) == pytest.approx(np.mean(pairs))
    low, high = auc_interval(labels, scores, resamples=200)
    assert low < roc_auc(labels, scores) < high


def test_scores_are_stored_drop_by_their_threshold_and_leave_the_measures_alone(
    stages, helpers, tmp_path, model_file, monkeypatch
):
    texts = [f"{helpers.sentence(k, 30)} {KIND}" for k in range(4)]
    texts[0] = f"{RUDE} {helpers.sentence(9, 20)} {RUDE}"
    data = {"a.jsonl": helpers.jsonl({"text": text} for text in texts)}
    first = stages(data, until="filter")

    def must_not_run(*arguments):
        raise AssertionError("this was done before")

    def again(**config):
        for path in first["filter"].directory.iterdir():
            path.unlink()
        done = stages(data, until="filter", filter=config)["filter"]
        return done, read_ipc(done.paths("filter-")[0], "decision.filter")

    monkeypatch.setattr("data_jobs.filter.measure", must_not_run)
    _, table = again(scores={"toxic": str(model_file)})
    scores = [dict(row)["toxic"] for row in table["scores"].to_pylist()]
    assert len(scores) == 4 and scores[0] == max(scores)
    monkeypatch.setattr("data_jobs.quality.scores.score", must_not_run)
    limit = (sorted(scores)[-1] + sorted(scores)[-2]) / 2
    done, _ = again(scores={"toxic": str(model_file)}, thresholds={"max_toxic": limit})
    assert done.counts["reasons"] == {"high-toxic": 1}
    _, table = again()
    assert table["scores"].to_pylist() == [[]] * 4


def test_a_model_of_other_labels_is_refused_as_a_score(tmp_path):
    lines = [f"__label__{label} {RUDE}" for label in ("pt", "es", "0")]
    (tmp_path / "t.txt").write_text("\n".join(lines * 20) + "\n")
    model = train_supervised(
        str(tmp_path / "t.txt"), 1, dim=4, epoch=1, minn=2, maxn=3, bucket=100_000
    )
    model.save_model(str(tmp_path / "lid.bin"))
    with pytest.raises(RecipeError, match="needs two labels, __label__0 and __label__1"):
        load_model(str(tmp_path / "lid.bin"))


@pytest.mark.parametrize(
    ("scores", "message"),
    [({"toxic": "nowhere.bin"}, "No such score model"), ({"words": "a.bin"}, "Not a name")],
)
def test_a_missing_model_or_a_taken_name_is_refused(stages, helpers, scores, message):
    data = {"a.jsonl": helpers.jsonl([{"text": helpers.sentence(1)}])}
    with pytest.raises(RecipeError, match=message):
        stages(data, until="filter", filter={"scores": scores})


def test_labels_come_from_csv_and_json_lines_by_threshold(tmp_path, capsys, monkeypatch):
    table = tmp_path / "l.csv"
    table.write_text('text,grade\n"um\nvinho",3\nágua,1\n', encoding="utf-8")
    assert read_labels(table, "text", "grade", 3) == [("um\nvinho", True), ("água", False)]
    lines = tmp_path / "l.jsonl"
    lines.write_text("".join(json.dumps({"t": t, "y": int(y)}) + "\n" for t, y in rows(120)))
    with pytest.raises(DataError, match="row 1"):
        read_labels(lines, "t", "label", 0.5)
    with pytest.raises(DataError, match="same label"):
        train([("a", True), ("b", True)], tmp_path / "m.bin")
    fields = ["--text-field", "t", "--label-field", "y"]
    output = str(tmp_path / "m.bin")
    monkeypatch.setattr("sys.argv", ["x", "--labels", str(lines), "--output", output, *fields])
    main()
    value = json.loads(capsys.readouterr().out)
    assert value["held_out"]["auc"] == 1.0 and value["trained_on"] < 120
