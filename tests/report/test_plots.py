"""The plots say what the facts say, in valid SVG, the same every time."""

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from mutirao.report import plots
from mutirao.report.facts import Drop, Energy, Facts, StageEnergy

STAGES = (StageEnergy("train", 3000.0, 9000.0, 4000.0, 60.0, 100.0, 0.3),)
FACTS = Facts(
    "tiny-00000000",
    "por_Latn",
    "done",
    drops=(Drop("clean", "empty", 1_234_567), Drop("filter", "$a <b> & $", 20)),
    losses=tuple((step, 8.0 - step / 200) for step in range(1, 1001)),
    heldout=((500, 5.5), (1000, 3.25)),
    unigram_loss=6.5,
    speed=((10, 5000.0), (20, 5100.0)),
    learning_rate=((10, 1e-3), (20, 5e-4)),
    restarts=(500,),
    energy=Energy(12_000.0, 0.25, 4000.0, 500.0, 0.3, STAGES, (("cpu constant", 12_000.0),)),
)


def words(svg: str) -> list[str]:
    return [text for text in ET.fromstring(svg).itertext() if text.strip()]


def test_every_plot_is_one_svg_element_with_a_title_for_screen_readers():
    for name, svg in plots.all_plots(FACTS).items():
        root = ET.fromstring(svg)
        assert root.tag == "svg" and root.get("role") == "img", name
        title = root.find("title")
        assert title is not None and title.get("id") == root.get("aria-labelledby"), name


def test_ids_are_unique_over_all_plots_of_a_page():
    svgs = plots.all_plots(FACTS).values()
    ids = [e.get("id") for svg in svgs for e in ET.fromstring(svg).iter() if e.get("id")]
    assert len(ids) == len(set(ids))


def test_bars_carry_their_number_and_reasons_are_not_read_as_formulas():
    found = words(plots.drops(FACTS))
    assert "1,234,567" in found
    assert "filter: $a <b> & $" in found


def test_lines_are_named_at_their_ends():
    found = words(plots.loss(FACTS))
    assert "held-out 3.25" in found and "unigram 6.50" in found
    assert any(word.startswith("training 3.0") for word in found)


def test_waste_is_taken_out_of_measured_and_estimated_in_proportion():
    assert plots._useful(3000.0, 9000.0, 4000.0) == pytest.approx((2000.0, 6000.0, 4000.0))
    assert plots._useful(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)


def test_a_long_run_is_drawn_with_few_points_and_keeps_its_mean():
    points = tuple((step, float(step % 7)) for step in range(1, 100_001))
    thin = plots.thinned(points)
    assert len(thin) <= plots.MAX_POINTS
    assert thin[-1][0] == 100_000
    mean = sum(value for _, value in points) / len(points)
    assert abs(sum(value for _, value in thin) / len(thin) - mean) < 0.01


def test_smoothing_does_not_shift_a_straight_line():
    line = tuple((step, 2.0 * step) for step in range(400))
    for (_, smooth), (_, value) in zip(plots.smoothed(line), line, strict=True):
        assert abs(smooth - value) < 1e-9


def test_nothing_to_draw_gives_no_plot():
    assert set(plots.all_plots(Facts("x", "por_Latn", "new")).values()) == {None}


def test_a_single_step_a_zero_rate_and_stages_without_energy_can_be_drawn():
    nothing = dataclasses.replace(STAGES[0], measured_j=0.0, estimated_j=0.0, wasted_j=0.0)
    energy = dataclasses.replace(FACTS.energy, stages=(nothing,), unattributed_j=0.0)
    one = dataclasses.replace(
        FACTS, losses=((1, 8.0),), learning_rate=((1, 0.0),), heldout=(), energy=energy
    )
    assert None not in plots.all_plots(one).values()


def test_the_settings_of_other_plots_in_the_process_are_left_alone_and_have_no_effect():
    import matplotlib

    alone = plots.loss(FACTS)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path"}):
        assert plots.loss(FACTS) == alone
        assert matplotlib.rcParams["font.size"] == 30
