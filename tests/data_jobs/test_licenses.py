"""Licences have one spelling, and a policy keeps or drops documents by it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from data_jobs.quality.licenses import disallowed, permitted, policy, spdx
from mutirao.core.errors import RecipeError
from mutirao.core.schemas import read_ipc

PUBLIC = "LicenseRef-public-domain"


@pytest.mark.parametrize(
    ("written", "id"),
    [
        ("cc-by-4.0", "CC-BY-4.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        (" CC_BY_SA_3.0 ", "CC-BY-SA-3.0"),
        ("apache-2.0", "Apache-2.0"),
        ("mit", "MIT"),
        ("odc-by", "ODC-By-1.0"),
        ("gfdl", "GFDL-1.3-or-later"),
        ("cc0-1.0", "CC0-1.0"),
        ("Public domain", PUBLIC),
        ("Public domain (official act, Lei 9.610/98 art. 8, IV)", PUBLIC),
        ("LicenseRef-public-domain", PUBLIC),
        ("licenseref-Public-Domain", PUBLIC),
        ("https://creativecommons.org/licenses/by-sa/4.0/", "CC-BY-SA-4.0"),
        ("http://creativecommons.org/licenses/by/3.0/br/", "CC-BY-3.0"),
        ("//creativecommons.org/licenses/by-nc-nd/4.0/deed.pt_BR", "CC-BY-NC-ND-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        ("https://opensource.org/license/mit", "MIT"),
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("unknown", ""),
        ("", ""),
        ("other", "other"),
        ("CC BY-XX 9.0", "CC BY-XX 9.0"),
        ("CC-BY-4.0 (not for companies)", "CC-BY-4.0 (not for companies)"),
    ],
)
def test_one_spelling_for_each_license(written, id):
    assert spdx(written) == id


def test_every_name_of_the_table_leads_to_an_spdx_id():
    from data_jobs.quality.licenses import _canonical, _table

    for id in [*_table()["names"].values(), *_table()["usual"]]:
        assert _canonical(id) == id


def test_a_misspelt_id_in_the_recipe_stops_with_the_nearest():
    with pytest.raises(RecipeError, match=r"allowed_licenses: cc-bi-4\.0[\s\S]*CC-BY-4\.0"):
        policy(["MIT", "cc-bi-4.0"])


def test_of_two_offered_licenses_one_is_enough_of_joined_ones_all_are_needed():
    allowed = policy(["MIT"])
    assert permitted("MIT OR GPL-3.0-only", allowed)
    assert not permitted("MIT AND GPL-3.0-only", allowed)
    assert not permitted("GPL-3.0-only", allowed)


def test_a_document_without_license_needs_the_empty_name():
    column = pa.chunked_array([["cc by 4.0", "", None], ["unknown", "other", "CC-BY-4.0"]])
    assert disallowed(column, ["CC-BY-4.0"]).to_pylist() == [False, True, True, True, True, False]
    both = ["cc-by-4.0", ""]
    assert disallowed(column, both).to_pylist() == [False, False, False, False, True, False]
    assert disallowed(pa.array([], pa.string()), both).to_pylist() == []


def test_the_filter_drops_by_license_and_the_split_reports_the_shares(stages, helpers):
    written = ("cc-by-4.0", "CC BY 4.0", "our own terms")
    rows = [{"id": i, "text": helpers.sentence(i), "license": written[i % 3]} for i in range(30)]
    plain = [{"id": i, "text": helpers.sentence(100 + i)} for i in range(10)]
    done = stages(
        {"a.jsonl": helpers.jsonl(rows), "b.jsonl": helpers.jsonl(plain)},
        sources=[
            {"path": "a.jsonl", "name": "a", "genre": "news"},
            {"path": "b.jsonl", "name": "b", "license": "MIT"},
        ],
        filter={"allowed_licenses": ["CC-BY-4.0", "MIT"]},
        until="split",
    )
    reasons = read_ipc(done["filter"].paths("filter-")[0], "decision.filter").column("reason")
    assert [why == "license" for why in reasons.to_pylist()] == [i % 3 == 2 for i in range(30)]
    info = done["split"].content["info"]
    assert set(info["licenses"]) == {"CC-BY-4.0", "MIT"}
    refused = info["shares"]["a"]["unrecognised"]["news"]
    assert (refused["kept"]["documents"], refused["dropped"]["documents"]) == (0, 10)
    sides = [
        sides
        for source in info["shares"].values()
        for genres in source.values()
        for sides in genres.values()
    ]
    counts = done["split"].counts
    for side, name in (("kept", "documents_out"), ("dropped", "documents_in")):
        total = sum(one[side]["documents"] for one in sides)
        assert total == counts[name] - (counts["documents_out"] if side == "dropped" else 0)
    text = read_ipc(done["clean"].paths("text-")[0], "text")
    assert text.column("license")[1].as_py() == "CC BY 4.0"  # the source's own words stay
