"""Does the one file hold what the results say, ask for nothing, and take no name for code?"""

from __future__ import annotations

import base64
import html.parser
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tierform
from tierform import Result, TierformError
from tierform.errors import MissingDependency, Problem
from tierform.simulation.page_timeline import PIECES, covered, union
from tierform.studio import export
from tierform.studio.content import engine_content, open_paths, pages, problem_content
from tierform.studio.worker import KINDS
from tierform.validation.ledger import EngineLedger, Point, Tolerance

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


# -- serving runs and studies ----------------------------------------------------------------------------------------
SERVICE = {
    **{
        "schema": "tierform.service/1",
        "model": "m",
        "chip": "c",
        "chips": 1,
        "replicas": 1,
        "requests": 2,
        "slo": "none",
    },
    **{"counts": {}, "engine": {}, "ttft_s": {}, "tpot_s": {}, "e2e_s": {}, "queue_s": {}, "notes": []},
}


def test_are_serving_runs_opened_as_they_were_written(tmp_path: Path) -> None:
    view = {"schema": "tierform.service_view/1"}
    load = {
        "schema": "tierform.load/1",
        "within": 0.9,
        "best": None,
        "tried": [{"factor": 1.0}],
        "service": None,
        "view": None,
    }
    (tmp_path / "a.json").write_text(json.dumps({**SERVICE, "view": view}))
    (tmp_path / "b.json").write_text(json.dumps(load))
    (tmp_path / "c.json").write_text(json.dumps({"by": "price", "found": [SERVICE, {**SERVICE, "chip": "d"}]}))
    opened = open_paths([tmp_path])
    assert not opened.problems and not opened.others and not opened.runs
    given = pages(opened, exported=True)
    assert given["first"] == "serving"
    assert [one["id"] for one in given["services"]] == ["0", "1", "2", "3"]
    assert given["services"][0]["view"] == view and "view" not in given["services"][0]["service"]
    assert given["services"][1]["service"] is None and given["services"][1]["search"]["tried"] == [{"factor": 1.0}]
    assert [one["by"] for one in given["services"]] == [None, None, "price", "price"]


@pytest.mark.parametrize("key", ["engine", "ttft_s", "requests"])
def test_is_a_broken_serving_run_told(key: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(json.dumps({**SERVICE, key: 3 if key != "requests" else "many"}))
    opened = open_paths([tmp_path])
    assert not opened.services and key in opened.problems[0].what and "serve" in str(opened.problems[0].fix)


def test_is_a_study_opened_and_another_database_left_alone(tmp_path: Path) -> None:
    import sqlite3

    from tierform.exploration.study import explore

    (tmp_path / "space.yaml").write_text(
        "schema: tierform.space/1\nname: toy\nobjectives: [latency_s, energy_J]\n"
        "job: {model: bert-base, chip: atleus, task: {kind: inference, batch: 1, sequence: 16}, thermal: none}\n"
        "parameters: {width: {path: chip.network.width, values: [64 bit, 128 bit]}}\n"
    )
    explore(tmp_path / "space.yaml", study=tmp_path / "toy.db", budget=2)
    with sqlite3.connect(tmp_path / "other.db") as base:
        base.execute("CREATE TABLE mine (x)")
    (tmp_path / "text.db").write_text("no database")
    before = (tmp_path / "other.db").read_bytes()
    opened = open_paths([tmp_path])
    assert [one["name"] for one in opened.studies] == ["toy"] and opened.studies[0]["view"]["counts"]["done"] == 2
    assert sorted(opened.others) == ["other.db", "text.db"] and not opened.problems
    assert (tmp_path / "other.db").read_bytes() == before
    assert str(tmp_path) not in json.dumps(opened.studies[0]), "a page has no path of this machine"


# -- the ledger, held from its page ----------------------------------------------------------------------------------
def test_are_engines_told_one_by_one_and_a_missing_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    point = Point(
        case="a",
        quantity="time",
        unit="s",
        reference=1.0,
        ours=1.1,
        tolerance=Tolerance(0.2),
        source="a source",
        evidence="measured",
    )
    ledger = EngineLedger("laws", [point])

    class Registry:
        def names(self) -> list[str]:
            return ["laws", "models"]

        def get(self, name: str) -> Callable[[None], EngineLedger]:
            if name == "models":
                raise MissingDependency("torch", "the engine 'models'", "train")
            return lambda data: ledger

    monkeypatch.setattr("tierform.validation.ENGINES", Registry())
    told: list[dict[str, Any]] = []
    KINDS["ledger"]({}, told.append, ())
    assert [one["event"] for one in told] == ["progress", "engine", "progress", "skipped"]
    assert told[1]["engine"] == engine_content(ledger.to_dict())
    assert told[1]["engine"]["relative_error"] == pytest.approx([0.1]) and "torch" in told[3]["why"]
