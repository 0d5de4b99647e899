"""Runs beside one another: what compares, what is refused and why, and how it reads."""

from __future__ import annotations

import json

import pytest

from compared_runs import BATCH, CONTEXT, TEXTS, begin, finish, pack, train, whole
from mutirao.core.errors import RecipeError
from mutirao.report.compare_page import render_comparison, write_comparison
from mutirao.run.compare import best_first, common_tokens, compare, find_runs, loss_at
from mutirao.run.compare_tables import lines, short_count, value_text

STEP = BATCH * CONTEXT


def test_recipes_are_compared_by_field_and_role(workdir):
    one = whole(workdir, train={"lr": 1e-3, "workers": 2})
    other = whole(workdir, train={"lr": 2e-3, "workers": 4})
    found = compare(workdir, [one, other]).differences
    assert [(d.name, d.role, d.values) for d in found] == [
        ("train.lr", "identity", (1e-3, 2e-3)),
        ("train.workers", "execution", (2, 4)),
    ]


def test_a_source_more_is_a_difference_field_by_field(workdir):
    one = begin(workdir)
    two = [{"path": "x.txt"}, {"path": "y.txt", "name": "y", "weight": 2.0}]
    found = compare(workdir, [one, begin(workdir, sources=two)]).differences
    values = {d.name: d.values for d in found}
    assert values["sources.1.weight"] == (None, 2.0) and "sources.0.path" not in values


def test_equal_recipes_on_other_text_differ_in_the_content_of_the_sources(workdir):
    runs = [whole(workdir, text="aa"), whole(workdir, text="bb")]
    (found,) = compare(workdir, runs).differences
    assert found.name == "content of the sources" and len(set(found.values)) == 2


def test_bits_per_byte_compare_between_tokenizers_on_the_same_held_out_text(workdir):
    runs = [whole(workdir, 1.5), whole(workdir, 1.4, tokenizer="other", seed=2)]
    found = compare(workdir, runs)
    assert [row.bits_per_byte for row in found.rows] == [1.5, 1.4]
    (reason,) = found.refused
    assert "another tokenizer" in reason and "nats" in reason
    assert found.losses[0][-1] and set(found.losses[1]) == {None}


def test_the_same_text_in_other_shards_and_order_is_the_same_text(workdir):
    runs = [whole(workdir), whole(workdir, 1.4, texts=TEXTS[::-1], per_shard=1, seed=2)]
    found = compare(workdir, runs)
    assert found.refused == () and found.rows[1].bits_per_byte == 1.4


@pytest.mark.parametrize("texts", [("Era uma vez.", "Outra fez.", "E mais uma."), TEXTS[:2]])
def test_bits_per_byte_on_other_text_are_refused_and_the_rest_is_shown(workdir, texts):
    runs = [whole(workdir), whole(workdir, 1.4, texts=texts, seed=2)]
    found = compare(workdir, runs)
    assert [row.bits_per_byte for row in found.rows] == [1.5, None]
    assert found.rows[1].heldout == () and found.rows[1].tokens_per_s == 1030
    (reason,) = found.refused
    assert "other held-out text" in reason and runs[1].id in reason
    assert found.losses[1][-1] is not None


def test_losses_are_told_at_tokens_that_all_have_seen(workdir):
    short = begin(workdir)
    pack(workdir, short)
    train(short, steps=20)
    found = compare(workdir, [whole(workdir, 1.5, seed=2), short])
    assert found.at_tokens[-1] == 20 * STEP and found.rows[1].status == "new"
    assert found.losses[0][-1] == pytest.approx(3.2) and found.losses[1][-1] == pytest.approx(3.0)
    assert found.rows[1].tokens == 20 * STEP and found.rows[1].heldout[-1] == (20 * STEP, 1.5)


def test_a_loss_is_the_mean_of_the_window_else_of_the_last_step():
    losses = ((10, 4.0), (20, 3.0), (30, 2.0))
    assert loss_at(losses, 30, 15) == 2.5
    assert loss_at(losses, 29, 1) == 3.0
    assert loss_at(losses, 9, 5) is None


def test_a_run_that_has_not_trained_has_no_part_in_the_common_tokens(workdir):
    found = compare(workdir, [begin(workdir), whole(workdir, seed=2)])
    assert found.at_tokens[-1] == 40 * STEP and set(found.losses[0]) == {None}
    assert common_tokens([found.rows[0]]) == ()
    assert "–" in "\n".join(lines(found))


def test_two_runs_of_which_nothing_is_known_are_still_compared(workdir):
    said = lines(compare(workdir, [begin(workdir), begin(workdir, seed=2)]))
    assert any("seed" in line for line in said)


def test_training_that_another_run_did_is_shown_and_said(workdir):
    one = whole(workdir, 1.5)
    other = begin(workdir, evaluate={"samples": 9})
    pack(workdir, other)
    finish(workdir, other, 1.5, maker=one.id)
    row = compare(workdir, [one, other]).rows[1]
    assert row.tokens == 40 * STEP and row.losses[-1][1] == pytest.approx(3.0)
    assert one.id in row.notes[0]


def test_losses_of_a_removed_run_come_from_the_result_in_the_store(workdir):
    other = begin(workdir)
    pack(workdir, other)
    finish(workdir, other, 1.5, maker="gone-00000000")
    assert compare(workdir, [other]).rows[0].losses[-1] == (40 * STEP, 2.0)


def test_the_best_comes_first_and_unknown_ones_last(workdir):
    runs = [begin(workdir, seed=9), whole(workdir, 1.5), whole(workdir, 1.2, seed=2)]
    found = best_first(compare(workdir, runs))
    assert [row.bits_per_byte for row in found.rows] == [1.2, 1.5, None]
    assert found.differences[0].values == (2, 42, 9)
    assert found.losses[0][-1] == pytest.approx(2.4, abs=0.01) and found.losses[2][-1] is None


def test_runs_are_found_by_name_or_beginning_and_each_only_once(workdir):
    one = whole(workdir)
    other = whole(workdir, seed=2)
    assert [run.id for run in find_runs(workdir, (one.id[:9], other.id))] == [one.id, other.id]
    with pytest.raises(RecipeError, match="same run twice") as twice:
        find_runs(workdir, (other.id, other.id[:9]))
    assert twice.value.exit_code == 2
    with pytest.raises(RecipeError, match="nothing to compare"):
        find_runs(workdir, (one.id,))
    with pytest.raises(RecipeError, match="no run 'tyni'"):
        find_runs(workdir, (one.id, "tyni"))


def test_the_tables_fit_into_80_columns_for_any_number_of_runs(workdir):
    long = {"name": "a-name-of-a-recipe-that-is-longer-than-most"}
    runs = [whole(workdir, seed=n, train={"lr": 1e-3 / (n + 1)}, **long) for n in range(11)]
    said = lines(compare(workdir, runs))
    assert max(map(len, said)) <= 79
    assert all(any(run.id[-8:] in line for line in said) for run in runs)


def test_many_differences_become_lines_with_the_runs_that_have_each_value(workdir):
    sections = {"split": {"heldout": 0.1}, "clean": {"html": "keep"}, "neardup": {"ngram": 4}}
    changed = {**sections, "seed": 2, "model": {"layers": 3}, "language": "spa_Latn"}
    runs = [begin(workdir), begin(workdir, **changed), begin(workdir, **changed, train={"lr": 0.1})]
    said = lines(compare(workdir, runs))
    assert max(map(len, said)) <= 79
    assert "  seed: 42 in 1; 2 in 2, 3" in said and "  train.lr: 0.001 in 1, 2; 0.1 in 3" in said


def test_the_record_is_plain_json(workdir):
    runs = [whole(workdir), whole(workdir, seed=2)]
    record = json.loads(json.dumps(compare(workdir, runs).record()))
    assert record["format"] == 1 and record["differences"][0]["name"] == "seed"
    assert record["runs"][0]["bits_per_byte"] == 1.5 and "energy_kwh" in record["runs"][0]
    assert len(record["loss"]["runs"][1]) == len(record["loss"]["at_tokens"])


def test_the_page_is_offline_and_holds_both_plots_and_all_values(workdir, tmp_path):
    runs = [whole(workdir), whole(workdir, 1.4, seed=2, tokenizer="<b>other</b>")]
    found = compare(workdir, runs)
    page = write_comparison(found, tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert page == render_comparison(found)
    assert page.count("<svg") == 2 and "1.4000" in page and "another tokenizer" in page
    assert "http" not in page and "<script" not in page
    assert all(run.id in page for run in runs) and f"{runs[1].id} predicts" in page


def test_the_page_of_runs_without_training_says_so(workdir):
    page = render_comparison(compare(workdir, [begin(workdir), begin(workdir, seed=2)]))
    assert "<svg" not in page and "No run has trained yet." in page


def test_the_page_is_not_written_over_a_folder(workdir, tmp_path):
    found = compare(workdir, [begin(workdir), begin(workdir, seed=2)])
    with pytest.raises(RecipeError, match="path of a file"):
        write_comparison(found, tmp_path)


def test_values_are_written_as_in_a_recipe():
    assert [value_text(v) for v in (None, True, (0.9, 0.95), "", "bpe")] == [
        "unset",
        "true",
        "[0.9, 0.95]",
        "''",
        "bpe",
    ]
    assert [short_count(n) for n in (512, 61_440, 9_830_000_000)] == ["512", "61.4k", "9.83B"]
