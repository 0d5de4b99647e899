"""The report page: complete, offline, escaped, valid, and there for a run that stopped early."""

import itertools
import shutil
import time
from html.parser import HTMLParser

import pytest

from made_up_run import RECIPE, finished_run
from mutirao.core.energy_rows import EnergyRow, RunUse, SegmentWriter, UsageRow
from mutirao.core.files import write_json
from mutirao.core.lease import boot_id
from mutirao.core.stage_marks import MarkWriter
from mutirao.report import wording
from mutirao.report.facts import Drop, Facts, Sample
from mutirao.report.gather import gather
from mutirao.report.page import render, write_report

VOID = {"meta", "link", "br", "img", "hr", "input"}
LOADS = {"src", "href", "xlink:href", "data", "action", "poster", "srcset"}


class Checker(HTMLParser):
    """Tags must close in the order in which they opened; collects what a test looks at."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in LOADS]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    made = finished_run(tmp_path_factory.mktemp("page"))
    return write_report(*made, RECIPE).read_text(encoding="utf-8")


def test_the_page_is_balanced_html_with_headings_in_order(page):
    found = Checker(page)
    levels = [int(tag[1]) for tag in found.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert len(found.ids) == len(set(found.ids))
    assert found.tags.count("svg") == 4  # drops, loss, speed, learning rate; no energy rows


def test_the_page_loads_nothing(page):
    found = Checker(page)
    assert all(value.startswith("#") for value in found.loads)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert "@import" not in page
    assert page.count("url(") == page.count("url(#")


def test_the_numbers_of_the_stages_are_on_the_page(page):
    text = " ".join(" ".join(Checker(page).text).split())
    assert "10 documents in, 6 kept (60%)" in text
    assert "a model of 1.23 million parameters trained on 360 tokens" in text
    assert "2.000 bits per byte against 3.000 for a unigram model" in text
    assert "CC0-1.0" in text
    assert "key-of-train" in text


def test_shares_of_text_stand_by_source_licence_and_genre(run, page):
    (row,) = gather(*run, RECIPE).shares
    assert (row.source, row.license, row.genre) == ("texts", "CC0-1.0", "law")
    assert (row.documents, row.text_bytes) == (6, 600)
    assert (row.dropped_documents, row.dropped_bytes) == (3, 30)
    assert "Text by source, licence and genre" in page and "<td>law</td>" in page


def test_a_document_is_counted_once_by_the_stage_that_dropped_it_first(run):
    facts = gather(*run, RECIPE)
    assert facts.drops == (Drop("clean", "invalid-json", 1), Drop("filter", "min_words", 3))
    assert not facts.drops_overlap


def test_before_the_split_the_stages_own_counts_are_shown_and_said_to_overlap(run):
    run_dir, manifests = run
    first = {name: manifests[name] for name in ("ingest", "clean", "filter")}
    facts = gather(run_dir, first, RECIPE)
    assert Drop("filter", "min_words", 4) in facts.drops
    assert "more than one" in render(facts)


def test_the_unigram_line_is_in_the_unit_of_the_loss(run):
    facts = gather(*run, RECIPE)
    assert facts.unigram_loss == pytest.approx(3.0 * 0.693147 * 60 / 20, rel=1e-5)


def test_a_run_with_its_last_stage_is_finished_though_its_record_still_says_running(run):
    assert gather(*run, RECIPE).status == "done"
    run_dir, manifests = run
    del manifests["export"]
    assert gather(run_dir, manifests, RECIPE).status == "running"


def test_samples_are_escaped_and_masked(page):
    assert "Escreva para &lt;b&gt;Ana&lt;/b&gt;" in page
    assert "[e-mail] ou [telephone]" in page
    assert "exemplo.org" not in page and "98765" not in page


def test_markup_in_any_text_stays_text():
    evil = "<script>alert(1)</script>"
    facts = Facts(
        evil,
        evil,
        evil,
        reason=evil,
        documents_in=1,
        drops=(Drop("clean", evil, 1),),
        samples=(Sample(evil, evil),),
        versions=((evil, evil),),
        machines=(evil,),
        recipe_yaml=f"name: {evil}",
    )
    page = render(facts)
    assert "script" not in Checker(page).tags
    assert evil not in page


def test_a_run_without_any_finished_stage_gets_a_page(tmp_path):
    page = write_report(tmp_path, {}, RECIPE).read_text(encoding="utf-8")
    assert "svg" not in Checker(page).tags
    assert "nothing to report" in page


@pytest.mark.parametrize("missing", ["clean", "split", "pack", "tokenizer", "train", "evaluate"])
def test_any_stage_may_be_missing(run, missing):
    run_dir, manifests = run
    del manifests[missing]
    shutil.rmtree(run_dir / "metrics")
    page = Checker(write_report(run_dir, manifests, RECIPE).read_text(encoding="utf-8"))
    assert page.tags.count("h1") == 1


def test_results_of_the_evaluation_that_cannot_be_read_are_left_out(run):
    evaluated = run[1]["evaluate"].directory
    (evaluated / "samples.json").write_bytes(b'{"samples": [{"pro')
    (evaluated / "evaluation.json").unlink()
    facts = gather(*run, RECIPE)
    assert facts.samples == () and facts.bits_per_byte is None


def write_ledger(run_dir) -> None:
    """One second in which the run trains and takes 30 of the 40 J of the processor."""
    now = time.time()
    marks = MarkWriter(run_dir, run_dir.name, "BRA")
    mark = marks.begin("train")
    rows = SegmentWriter(run_dir.parent.parent / "ledger" / boot_id())
    interval = (boot_id(), now, now + 1.0)
    use = {run_dir.name: RunUse(cpu_s=0.75)}
    rows.append(
        [
            EnergyRow(interval[0], "cpu", *interval[1:], 40.0, "rapl", measured=True),
            UsageRow(*interval, busy_cpu_s=1.0, used_bytes=1, runs=use),
        ]
    )
    rows.close()
    marks.write("end", t=now + 1.0, mark=mark)
    marks.write("attempt_end", t=now + 1.0)


def test_joules_of_the_ledger_are_on_the_page_by_stage(run):
    run_dir, manifests = run
    write_ledger(run_dir)
    facts = gather(run_dir, manifests, RECIPE)
    assert facts.energy.energy_j == pytest.approx(30.0, rel=0.05)
    assert facts.energy.measured_share == 1.0
    assert facts.energy.unattributed_j == pytest.approx(10.0, rel=0.05)
    assert "train" in [stage.stage for stage in facts.energy.stages]
    text = " ".join(Checker(render(facts)).text)
    assert "all of it measured" in text
    assert "cpu rapl 100%" in text
    assert "Our World in Data" in text


def test_a_damaged_ledger_is_said_on_the_page(run):
    run_dir, manifests = run
    write_ledger(run_dir)
    for segment in (run_dir.parent.parent / "ledger").glob("*/*.jsonl"):
        segment.write_text("not json\n")
    facts = gather(run_dir, manifests, RECIPE)
    assert facts.energy is None
    assert "The energy ledger could not be read" in wording.energy_sentences(facts)


def test_a_loss_that_was_not_finite_does_not_break_the_plot(run):
    run_dir, manifests = run
    segment = run_dir / "metrics" / "000001.jsonl"
    segment.write_text('{"kind":"train","step":31,"first_step":31,"losses":[NaN]}\n')
    facts = gather(run_dir, manifests, RECIPE)
    assert [step for step, _ in facts.losses][-1] == 30


def test_the_same_run_gives_the_same_bytes(run, page):
    assert render(gather(*run, RECIPE)) == page


def test_a_stopped_run_says_why(tmp_path):
    record = {"id": "x-1", "status": "stopped", "reason": "the energy budget is spent"}
    write_json(tmp_path / "run.json", record)
    page = write_report(tmp_path, {}, RECIPE).read_text(encoding="utf-8")
    assert "was stopped and can be continued (the energy budget is spent)" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.000123456, "0.000123"),
        (12.3456, "12.3"),
        (1234.5, "1,230"),
        (7e9, "7,000,000,000"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert wording.significant(value) == text


def test_the_tokenizer_stands_beside_those_it_was_compared_with(run):
    run_dir, manifests = run
    row = {"tokens_per_word": 1.2345, "bytes_per_token": 4.9, "single_byte_share": 0.25}
    made = manifests["tokenizer"]
    made.content["info"].update(row, sources={"leis": {**row, "tokens_per_word": 1.5}})
    made.provenance["notes"] = {"compared": {"their/tok<1>": {**row, "tokens_per_word": 1.7}}}
    facts = gather(run_dir, manifests, RECIPE)
    assert [(one.tokenizer, one.source, one.tokens_per_word) for one in facts.fertility] == [
        ("", "", 1.2345),
        ("", "leis", 1.5),
        ("their/tok<1>", "", 1.7),
    ]
    page = Checker(render(facts))
    assert "their/tok<1>" in page.text and "1.234" in page.text and "tokenizer" in page.ids


def test_a_run_without_fertility_has_no_section_of_it(run):
    run_dir, manifests = run
    assert "tokenizer" not in Checker(render(gather(run_dir, manifests, RECIPE))).ids
