"""What the guard calls bad, what its window holds, and what a rollback writes down."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mutirao.core.errors import UserError
from mutirao.core.files import read_json, write_json
from mutirao.core.recipe import Guard as Settings
from train_jobs import checkpoint
from train_jobs.engine import Outcome
from train_jobs.guard import Guard
from train_jobs.rollback import RollBack, note_rollback
from train_jobs.skips import SkipList, guard_summary, joined

BATCH = 8


def settings(**options) -> Settings:
    return Settings.model_validate({"window": 16, "rollback_after": 3, **options})


def step(guard: Guard, number: int, loss: float, norm: float = 1.0) -> str:
    """As the loop does it: the verdict first, then the note."""
    verdict = guard.verdict(loss, norm)
    positions = [(number - 1) * BATCH, number * BATCH]
    guard.note(number, loss, Outcome(norm, verdict), positions)
    return verdict


def settled(steps: int = 16, **options) -> Guard:
    """After good steps with losses around 3.0 (deviation 0.05) and norms around 1.0 (0.1)."""
    guard = Guard(settings(**options))
    for number in range(1, steps + 1):
        sign = -1 if number % 2 else 1
        assert step(guard, number, 3.0 + 0.05 * sign, 1.0 + 0.1 * sign) == ""
    return guard


def test_six_deviations_of_loss_or_norm_are_a_spike():
    guard = settled()
    assert guard.verdict(3.29, 1.59) == ""
    assert guard.verdict(3.31, 1.0) == "spike"
    assert guard.verdict(3.0, 1.61) == "spike"
    assert guard.verdict(0.1, 0.01) == ""  # lower is no harm
    assert settled(spike_sigma=0).verdict(1e9, 1e9) == ""


def test_a_step_of_fewer_sequences_is_no_spike_and_moves_no_limit():
    guard = settled()
    before = guard.state()
    guard.whole = False  # such as the last step of a run
    assert step(guard, 17, 3.4, 2.0) == ""
    assert guard.state() == before
    assert guard.verdict(math.nan, 1.0) == "not-finite"
    guard.whole = True
    assert guard.verdict(3.4, 2.0) == "spike"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_bad_from_the_first_step_on(bad):
    assert Guard(settings()).verdict(bad, 1.0) == "not-finite"
    assert Guard(settings()).verdict(3.0, bad) == "not-finite"


def test_bad_values_never_enter_the_window():
    guard = settled(rollback_after=100)
    before = guard.state()
    for number, loss in enumerate([math.nan, 50.0, math.inf, 3.4], start=17):
        assert step(guard, number, loss)
    after = guard.state()
    assert (after["losses"], after["norms"]) == (before["losses"], before["norms"])
    assert guard.verdict(3.31, 1.0) == "spike" and guard.verdict(3.29, 1.0) == ""


def test_nothing_is_a_spike_before_half_the_window_is_full():
    guard = Guard(settings(window=16))
    for number in range(1, 8):
        assert step(guard, number, 3.0) == ""
    assert guard.verdict(1e6, 1.0) == ""
    step(guard, 8, 3.0)
    assert guard.verdict(1e6, 1.0) == "spike"


def test_equal_values_make_no_spike_of_a_rounding():
    guard = Guard(settings())
    for number in range(1, 17):
        step(guard, number, 3.0)
    assert guard.verdict(3.0 + 1e-9, 1.0 + 1e-9) == ""
    assert guard.verdict(3.08, 1.0) == ""
    assert guard.verdict(3.1, 1.0) == "spike"


def test_a_step_that_the_loss_scaler_left_out_is_no_event():
    guard = settled()
    before = guard.state()
    for number in range(17, 30):
        guard.note(number, 3.0, Outcome(math.inf, "scaler"), [0, 8])
    assert guard.state() == before


def test_bad_steps_in_a_row_end_in_a_rollback_that_tells_what_it_was():
    guard = settled()
    step(guard, 17, 9.0)
    step(guard, 18, 3.0)  # a good one between
    step(guard, 19, 9.0)
    step(guard, 20, math.nan)
    with pytest.raises(RollBack) as caught:
        step(guard, 21, 9.5)
    assert caught.value.left_out == [[144, 152], [152, 160], [160, 168]]
    assert "3 in a row (1 not-finite, 2 spike)" in str(caught.value)
    assert "loss 9.5, norm 1, where at most 3.293 and 1.586 are usual" in str(caught.value)


def test_a_restart_in_the_middle_judges_every_later_step_alike():
    one, losses = settled(40), [3.1, 9.0, 3.29, 9.0, math.nan]
    other = Guard(one.settings, {**one.state()})
    for number, loss in enumerate(losses, start=41):
        other = Guard(other.settings, other.state())
        assert step(one, number, loss) == step(other, number, loss)
        assert (one.most_loss, one.most_norm) == (other.most_loss, other.most_norm)
    assert one.state() == other.state() and one.skipped == 3
    for guard in (one, other):
        with pytest.raises(RollBack, match="3 in a row"):
            step(guard, 46, 9.0)


def test_the_state_that_a_checkpoint_writes_does_not_change_under_it():
    guard = settled()
    kept = guard.state()
    step(guard, 17, math.nan)
    assert kept["bad"] == [] and kept["skipped"] == 0


def bad_steps(first: int, count: int = 3) -> RollBack:
    ranges = [[(n - 1) * BATCH, n * BATCH] for n in range(first, first + count)]
    return RollBack("bad-steps", first + count - 1, "3 in a row", ranges)


def checkpoint_at(run_dir, step: int, skips=(), files=(), **state):
    """The manifest alone; a file that it names is missing."""
    record = {"format": checkpoint.FORMAT, "step": step, "shapes": {}, "files": list(files)}
    record["state"] = {"cursor": {"sequences": step * BATCH, "skips": list(skips)}, **state}
    write_json(run_dir / "checkpoints" / f"step-{step:08d}" / "manifest.json", record)


def test_a_rollback_leaves_out_the_bad_steps_and_as_many_before(tmp_path):
    checkpoint_at(tmp_path, 10)
    note_rollback(tmp_path, bad_steps(21), settings(), BATCH)
    assert SkipList(tmp_path).ranges == [[17 * BATCH, 23 * BATCH]]  # steps 18-20, and 21-23


def test_met_again_at_once_it_reaches_further_back(tmp_path):
    checkpoint_at(tmp_path, 10)
    note_rollback(tmp_path, bad_steps(21), settings(), BATCH)
    note_rollback(tmp_path, bad_steps(24), settings(), BATCH)
    assert SkipList(tmp_path).ranges == [[14 * BATCH, 26 * BATCH]]


def test_checkpoints_that_have_learned_from_what_is_left_out_are_undone(tmp_path):
    for step_ in (15, 17, 19, 22):  # the last by a stop among the bad steps
        checkpoint_at(tmp_path, step_)
    note_rollback(tmp_path, bad_steps(21), settings(), BATCH)
    assert SkipList(tmp_path).ranges == [[17 * BATCH, 23 * BATCH]]
    assert checkpoint.steps(tmp_path) == [15, 17]


def test_where_no_sound_checkpoint_is_old_enough_the_oldest_stays(tmp_path):
    checkpoint_at(tmp_path, 16, files=[{"path": "lost.safetensors"}])
    checkpoint_at(tmp_path, 18)
    checkpoint_at(tmp_path, 19)
    note_rollback(tmp_path, bad_steps(21), settings(), BATCH)
    assert SkipList(tmp_path).ranges == [[18 * BATCH, 23 * BATCH]]
    assert checkpoint.newest(tmp_path).step == 18


def test_bad_near_the_start_it_begins_anew_from_the_seed(tmp_path):
    checkpoint_at(tmp_path, 2)
    note_rollback(tmp_path, bad_steps(3), settings(), BATCH)
    assert SkipList(tmp_path).ranges == [[0, 5 * BATCH]]
    assert checkpoint.steps(tmp_path) == []


def test_rollbacks_have_an_end_that_says_what_to_do_next(tmp_path):
    for first in (11, 31):
        note_rollback(tmp_path, bad_steps(first), settings(max_rollbacks=2), BATCH)
    note_rollback(
        tmp_path, RollBack("memory-fault", 40, "rank 1"), settings(max_rollbacks=2), BATCH
    )
    before = read_json(tmp_path / "guard.json")
    with pytest.raises(UserError, match="went back 2 times") as caught:
        note_rollback(tmp_path, bad_steps(51), settings(max_rollbacks=2), BATCH)
    assert caught.value.code == "not-finite"
    assert "train.lr" in caught.value.hint
    assert "--set train.guard.max_rollbacks=5" in caught.value.hint
    assert read_json(tmp_path / "guard.json") == before
    note_rollback(tmp_path, bad_steps(51), settings(max_rollbacks=5), BATCH)


def test_faults_of_the_machine_leave_nothing_out_and_have_an_end_of_their_own(tmp_path):
    fault = RollBack("compute-fault", 7, "rank 1")
    note_rollback(tmp_path, fault, settings(max_rollbacks=1), BATCH)
    note_rollback(tmp_path, bad_steps(8), settings(max_rollbacks=1), BATCH)
    with pytest.raises(UserError, match="rank 1") as caught:
        note_rollback(tmp_path, fault, settings(max_rollbacks=1), BATCH)
    assert caught.value.code == "compute-fault"
    content, machine = guard_summary(tmp_path)
    assert content["rollbacks"] == 1
    assert machine == {"compute_faults": 1, "memory_faults": 0}


def test_the_loss_of_one_record_of_the_skip_list_loses_no_entry(tmp_path):
    note_rollback(tmp_path, bad_steps(21), settings(), BATCH)
    listed = SkipList(tmp_path).ranges
    checkpoint_at(tmp_path, 30, skips=listed, guard={"skipped": 2})
    (tmp_path / "guard.json").unlink()
    assert SkipList(tmp_path).ranges == listed
    note_rollback(tmp_path, bad_steps(41), settings(), BATCH)
    assert SkipList(tmp_path).ranges == [*listed, [37 * BATCH, 43 * BATCH]]
    assert guard_summary(tmp_path)[0] == {
        "skipped_steps": 2,
        "rollbacks": 1,
        "sequences_left_out": 12 * BATCH,
    }


def test_bad_steps_of_a_checkpoint_that_are_on_the_list_are_over(tmp_path):
    guard = settled()
    step(guard, 17, 9.0)
    step(guard, 18, 9.0)
    note_rollback(tmp_path, bad_steps(17), settings(), BATCH)
    again = Guard(guard.settings, guard.state())
    again.leave_out(SkipList())
    assert again.bad == guard.bad
    again.leave_out(SkipList(tmp_path))
    assert (again.bad, again.skipped) == ([], 0)


def test_a_newer_guard_json_is_refused(tmp_path):
    write_json(tmp_path / "guard.json", {"format": 9, "rollbacks": []})
    with pytest.raises(UserError, match="newer mutirao"):
        SkipList(tmp_path)


def test_ranges_are_joined_and_hold_their_positions():
    assert joined([[8, 12], [0, 4], [4, 6], [9, 10], [20, 20]]) == [[0, 6], [8, 12]]
    skips = SkipList()
    skips.ranges = [[2, 4], [6, 7]]
    assert skips.holds(np.arange(8)).tolist() == [0, 0, 1, 1, 0, 0, 1, 0]
    assert skips.count() == 3
