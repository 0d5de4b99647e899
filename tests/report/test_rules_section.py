"""The section on rules: worst first, the rest folded, examples masked and escaped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made_up_run import RECIPE, finished_run
from mutirao.report.facts import Drop, Facts
from mutirao.report.gather import gather
from mutirao.report.page import render
from mutirao.report.rule_facts import Rule, Rules, SourceShare
from mutirao.report.rules import gather_rules, shortened
from test_report_page import Checker


def facts(rules: Rules) -> Facts:
    return Facts("run", "por_Latn", "done", documents_in=100, rules=rules)


def text_of(page: str) -> str:
    return " ".join(" ".join(Checker(page).text).split())


def test_the_worst_rules_and_sources_stand_open_and_the_rest_is_folded():
    rules = tuple(Rule("filter", f"rule-{n:02d}", 100 - n) for n in range(40))
    sources = tuple(SourceShare(f"source-{n:02d}", 100, 99 - n) for n in range(50))
    page = render(facts(Rules(5_000, rules, sources)))
    section = page[page.index('id="rules"') : page.index("Each rule, with examples")]
    folded = [part.partition("</details>") for part in section.split("<details>")[1:]]
    opened = section.split("<details>")[0] + "".join(rest for _, _, rest in folded)
    assert "rule-09" in opened and "rule-10" not in opened
    assert "source-09" in opened and "source-10" not in opened
    assert "30 further rules" in section and "40 further sources" in section
    Checker(page)  # balanced


def test_a_rule_says_what_it_is_for_where_it_hits_and_shows_examples():
    rule = Rule("filter", "too-short", 7, "Too few words.", (SourceShare("web", 10, 4),), ("Oi.",))
    page = render(facts(Rules(100, (rule,), (SourceShare("web", 10, 7),))))
    said = text_of(page)
    assert "filter: too-short 7 7.0% web, 40%" in said
    assert "web 30% 7 10" in said  # kept, dropped, of so many
    assert "Too few words." in said and "Oi." in said


def test_examples_are_masked_before_they_are_cut_and_markup_stays_text():
    long = "palavra " * 18 + "fulano.de.tal@exemplo.com.br e depois mais texto"
    assert "@" not in shortened(long) and len(shortened(long)) <= 160
    rule = Rule("clean", "<b>", 1, "", (), (shortened("<script>x</script> ana@b.org"),))
    page = render(facts(Rules(1, (rule,))))
    assert "script" not in Checker(page).tags and "[e-mail]" in page


def test_nothing_dropped_leaves_the_section_out():
    assert 'id="rules"' not in render(facts(Rules()))


def test_the_evidence_of_the_pack_and_what_a_thin_one_would_drop_are_told(run):
    _, manifests = run
    drops = (Drop("filter", "too-short", 3), Drop("clean", "too-long", 1))
    judged = {
        "pack": "gug_Latn",
        "evidence": "thin",
        "thresholds": {"min_words": 5.0},
        "genres": {"law": {"min_words": 3.0}, "verse": {}},
        "would_drop": {"symbols": 2, "few-stop-words": 7},
    }
    manifests["filter"] = replace(manifests["filter"], content={"info": judged})
    found = gather_rules(manifests, drops)
    assert [(row.reason, row.documents) for row in found.would_drop] == [
        ("few-stop-words", 7),
        ("symbols", 2),
    ]
    assert found.rules[0].thresholds == ("min_words 5", "law: min_words 3", "verse: min_words off")
    assert found.rules[1].thresholds == ()
    said = text_of(render(facts(found)))
    assert "The evidence of the language pack gug_Latn is thin" in said
    assert "filter: few-stop-words 7 Too few" in said
    assert "Thresholds: min_words 5, law: min_words 3" in said


def test_evaluation_sets_that_were_looked_for_and_found_are_told(run):
    _, manifests = run
    row = {"name": "exame", "title": "Exame", "texts": 12, "short_texts": 2, "texts_found": 5}
    row |= {"documents_dropped": 3, "common_ngrams": 1, "share_found": 0.5}
    none = {**row, "name": "a", "texts": 2, "texts_found": 0, "documents_dropped": 0}
    info = {"sets": [none, row], "not_looked_for": ["assin2"]}
    manifests["decontaminate"] = replace(manifests["filter"], content={"info": info})
    drops = (Drop("decontaminate", "evaluation-text", 3),)
    found = gather_rules(manifests, drops)
    assert [one.name for one in found.evaluation] == ["exame", "a"]
    page = render(facts(found))
    said = text_of(page)
    assert "exame 10 5 (50%) 3 1 a 0 0 (–) 0 1" in said
    assert "only their names are known: assin2." in said
    Checker(page)
    del manifests["decontaminate"]
    assert "Evaluation sets" not in text_of(render(facts(gather_rules(manifests, drops))))


@pytest.mark.parametrize(("evidence", "words"), [("measured", "are measured"), ("none", "no pack")])
def test_a_run_that_dropped_nothing_still_says_by_what_it_was_judged(evidence, words):
    page = render(facts(Rules(100, pack="glg_Latn", evidence=evidence)))
    said = text_of(page)
    assert words in said and "No document was dropped." in said
    assert "Each rule, with examples" not in said
    Checker(page)


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path)


def test_keep_rates_come_from_what_split_joined(run):
    _, manifests = run
    split = manifests["split"]
    lost = {"filter.too-short": {"documents": 3, "text_bytes": 30}}
    info = {**split.content["info"], "dropped_per_source": {"texts": lost}}
    manifests["split"] = replace(split, content={**split.content, "info": info})
    found = gather_rules(manifests, (Drop("filter", "too-short", 3),))
    assert found.sources == (SourceShare("texts", 9, 3),)
    assert found.rules[0].sources == found.sources
    assert found.rules[0].words == "Too few words to be a document."
    assert found.sources[0].kept_share == pytest.approx(6 / 9)


def test_a_run_whose_files_are_gone_gets_its_rules_without_examples(run):
    found = gather(*run, RECIPE).rules
    assert [rule.reason for rule in found.rules] == ["min_words", "invalid-json"]
    assert not any(rule.examples for rule in found.rules)


def test_examples_come_from_the_dropped_documents(tmp_path, sample_drops):
    rules, dropped = sample_drops
    for rule in rules.rules:
        texts = dropped[rule.stage, rule.reason]
        assert 0 < len(rule.examples) <= 2
        for example in rule.examples:
            beginning = example[:20]
            assert "[" in beginning or any(" ".join(t.split())[:20] == beginning for t in texts)


@pytest.fixture(scope="module")
def sample_drops(tmp_path_factory):
    """Rules of a small run until filter, and its dropped texts by rule."""
    import json

    from data_jobs.results.view import show
    from mutirao.cli.common import run_guarded
    from mutirao.cli.main import cli
    from mutirao.run.results import open_folder

    folder = tmp_path_factory.mktemp("drops")
    texts = ["Oi.", "Olá, gente.", "ABC DEF GHI " * 30, "a b c d e f g h i j k " * 9]
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "t.jsonl").write_text("\n".join(lines) + "\n")
    words = ["data", "filter", str(folder / "t.jsonl"), "--output", str(folder / "out")]
    words += ["--language", "pt", "--quiet"]
    assert run_guarded(lambda: cli.main(words, "mutirao", standalone_mode=False)) == 0
    found = open_folder(folder / "out").manifests
    dropped: dict[tuple[str, str], list[str]] = {}
    for row in show(found, dropped=True, whole=True):
        dropped.setdefault((row["stage"], row["drop_reason"]), []).append(row["text"])
    drops = tuple(Drop(*rule, len(some)) for rule, some in dropped.items())
    return gather_rules(found, drops), dropped
