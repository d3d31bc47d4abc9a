"""Does the one file hold what the results say, ask for nothing, and take no name for code?"""

from __future__ import annotations

import base64
import html.parser
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tierform
from tierform import Result, TierformError
from tierform.errors import Problem
from tierform.simulation.page_timeline import PIECES, covered, union
from tierform.studio import export
from tierform.studio.content import open_paths, pages, problem_content

TUNE = tierform.FineTuning(tierform.LoRA(8), batch=2, sequence=64)


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return [tierform.simulate("bert-base", TUNE, chip, timeline=True) for chip in ("atleus", "a100")]


def content_of(text: str) -> dict[str, Any]:
    packed = re.search(r'<script type="text/plain" id="content">([^<]*)</script>', text)
    assert packed is not None
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed.group(1))))
    return found


class Asked(html.parser.HTMLParser):
    """Everything that a page would ask for or run."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_are_all_figures_in_the_file(results: list[Result], tmp_path: Path) -> None:
    export.write(tmp_path / "page.html", results)
    content = content_of((tmp_path / "page.html").read_text())
    assert content["exported"] and content["first"] == "compare"
    assert [run["name"] for run in content["runs"]] == ["bert-base on atleus", "bert-base on a100"]
    for run, result in zip(content["runs"], results, strict=True):
        assert run["result"]["latency_s"] == result.latency_s
        assert run["result"]["view"] == json.loads(json.dumps(result.view()))
        assert run["result"]["assumptions"] and run["result"]["citations"]
        assert {"Result", "By stage", "Memory"} <= {table["title"] for table in run["tables"]}


def test_does_the_file_ask_for_nothing(results: list[Result]) -> None:
    text = export.page_of(pages(open_paths([]), exported=True))
    asked = Asked()
    asked.feed(text)
    assert set(asked.links) <= {"data:,"}
    assert "default-src 'none'" in text and "connect-src" not in text
    style = text.split("<style>")[1].split("</style>")[0]
    assert re.findall(r"url\((?!data:)", style) == [] and "@import" not in style


def test_is_no_name_taken_for_code(results: list[Result], tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!--"
    results[0].save(tmp_path / "run.json")
    run = json.loads((tmp_path / "run.json").read_text())
    run["model"] = run["chip"] = run["view"]["dies"][0]["name"] = hostile
    run["notes"] = [hostile]
    (tmp_path / "run.json").write_text(json.dumps(run))
    text = export.page_of(pages(open_paths([tmp_path / "run.json"]), exported=True))
    assert "alert(" not in text
    assert content_of(text)["runs"][0]["result"]["notes"] == [hostile]
    plain, asked = Asked(), Asked()
    plain.feed(export.page_of(pages(open_paths([]), exported=True)))
    asked.feed(text)
    assert asked.tags == plain.tags


def test_is_a_stale_or_missing_build_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TierformError, match="pages are not built"):
        export.asset("nothing.js")
    monkeypatch.setattr(export, "asset", lambda name: b"")
    with pytest.raises(TierformError, match="another version"):
        export.page_of({})


def test_is_a_folder_read_and_said(results: list[Result], tmp_path: Path) -> None:
    results[0].save(tmp_path / "a.json")
    (tmp_path / "broken.json").write_text('{"schema": "tierform.result/1", "model": ')
    (tmp_path / "other.json").write_text('{"x": 1}')
    (tmp_path / "note.txt").write_text("no")
    outside = tmp_path.parent / "outside.json"
    results[1].save(outside)
    (tmp_path / "link.json").symlink_to(outside)
    found = open_paths([tmp_path])
    assert [run["file"] for run in found.runs] == ["a.json"]
    assert found.others == ("other.json",)
    assert len(found.problems) == 1 and "broken.json" in str(found.problems[0])
    assert [run["name"] for run in pages(open_paths([tmp_path / "a.json"] * 2), exported=False)["runs"]] == [
        "bert-base on atleus (a.json)"
    ] * 2


def test_does_a_problem_stay_a_record() -> None:
    given = problem_content(Problem("unknown key", "job.yaml", 3, "chp", "x", "chip", "Write chip."))
    place = {"file": "job.yaml", "line": 3, "key": "chp"}
    assert given == {**place, "message": "unknown key", "value": "x", "near": "chip", "fix": "Write chip."}


def test_is_a_ledger_shown_by_its_points(tmp_path: Path) -> None:
    from tierform.validation.ledger import EngineLedger, Point, Tolerance

    points = tuple(
        Point(case, "time", "s", 2.0, ours, Tolerance(0.1), "a source", "silicon")
        for case, ours in (("a", 2.1), ("b", 3.0))
    )
    (tmp_path / "ledger.json").write_text(json.dumps([EngineLedger("gpu", points).to_dict()]))
    (engine,) = open_paths([tmp_path / "ledger.json"]).ledger
    assert engine["passed_points"] == [True, False] and engine["tolerance"] == ["10 %", "10 %"]
    assert engine["sources"] == [("a source", "silicon")] and engine["relative_error"] == pytest.approx([0.05, 0.5])


# -- the timeline --------------------------------------------------------------------------------------------------
def test_are_shares_of_pieces_those_of_hand() -> None:
    # [1, 3] and [2, 4] join to [1, 4]; pieces of 2 s of a run of 8 s: half of the first, all of the second, then none.
    start, end = union(np.array([2.0, 1.0, 7.0]), np.array([4.0, 3.0, 8.0]))
    assert start.tolist() == [1.0, 7.0] and end.tolist() == [4.0, 8.0]
    assert covered(start, end, 8.0, 4).tolist() == [0.5, 1.0, 0.0, 0.5]


def test_does_the_timeline_keep_the_busy_time_of_every_resource(results: list[Result]) -> None:
    for result in results:
        told = result.view()["timeline"]
        assert told["end_s"] == pytest.approx(result.latency_s)
        slots = [slot for slot in result.slots if slot.kind != "transfer"]
        for row in told["rows"]:
            if row["resource"] == "network":
                continue
            mine = [slot for slot in slots if slot.lane.partition(", ")[0] == row["resource"]]
            lanes = {slot.lane for slot in mine} if row["lanes"] > 1 else {row["resource"]}
            busy = sum(slot.end_s - slot.start_s for slot in mine)
            assert row["busy_s"] * row["lanes"] == pytest.approx(busy, rel=1e-6) and lanes
            share = np.frombuffer(base64.b64decode(row["share"]), dtype=np.uint8)
            assert len(share) == PIECES == sum(row["operator"][1::2])
    assert tierform.simulate("bert-base", TUNE, "atleus").view()["timeline"] is None
