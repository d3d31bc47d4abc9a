"""Is a Result read back equal, are foreign files refused, and are frames, cards and short texts what they should be?"""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import tierform
from tierform import Job, Result, TierformError
from tierform.card import card
from tierform.workload import expand

TASKS = {
    "tune": ("bert-base", tierform.FineTuning(tierform.LoRA(8), batch=2, sequence=64)),
    "serve": ("gpt2", tierform.Inference(batch=2, sequence=64, decode=4)),
    "step": ("gpt2", tierform.Step((tierform.SequenceGroup(2, 1, 100),))),
}


@pytest.fixture(scope="module")
def result() -> Result:
    return tierform.simulate(*TASKS["tune"], "atleus", thermal="transient")


@pytest.fixture(scope="module")
def file(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "run.json"
    result.save(path)
    return path


@pytest.mark.parametrize("chip", ["atleus", "a100", "isaac", "haima"])
@pytest.mark.parametrize("task", TASKS)
def test_is_a_result_read_back_equal(task: str, chip: str, tmp_path: Path) -> None:
    made = tierform.simulate(*TASKS[task], chip)
    made.save(tmp_path / "one.json")
    again = Result.load(tmp_path / "one.json")
    content = json.loads((tmp_path / "one.json").read_text())
    assert again.content() == content
    assert again.view() == made.view()
    again.save(tmp_path / "two.json")
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert (again.stages, again.operators, again.wear) == (made.stages, made.operators, made.wear)
    assert (again.assumptions, again.citations, again.notes) == (made.assumptions, made.citations, made.notes)
    assert again.limits == made.limits and again.link_bytes == made.link_bytes
    assert again.energy_delay_product_Js == made.energy_delay_product_Js


def test_has_a_result_of_a_pipeline_no_limits_and_is_read_all_the_same(tmp_path: Path) -> None:
    split = tierform.Parallelism(pipeline=2)
    made = tierform.simulate("gpt2", tierform.Inference(batch=2, sequence=32), "a100", parallelism=split)
    made.save(tmp_path / "run.json")
    again = Result.load(tmp_path / "run.json")
    content = json.loads((tmp_path / "run.json").read_text())
    assert again.content() == content and content["limits"] is None and not again.has_limits
    assert "gpt2 on a100" in again._repr_html_()


def wrong(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "wrong.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(TierformError) as caught:
        Result.load(path)
    return str(caught.value)


def test_are_foreign_and_broken_files_refused(file: Path, tmp_path: Path) -> None:
    content = json.loads(file.read_text())
    with pytest.raises(TierformError, match="no such file"):
        Result.load(tmp_path / "none.json")
    assert "malformed JSON" in wrong(tmp_path, file.read_text()[:2000])
    assert "this is no result" in wrong(tmp_path, [1, 2])
    assert "this is no result" in wrong(tmp_path, {"latency_s": 1.0})
    assert "tierform.result/1" in wrong(tmp_path, {**content, "schema": "tierform.result/9"})
    assert "holds several results" in wrong(tmp_path, {"schema": "tierform.comparison/1", "results": [content]})
    told = wrong(tmp_path, {key: value for key, value in content.items() if key not in ("energy_J", "stages")})
    assert "energy_J: is missing" in told and "stages: is missing" in told
    broken = {**content, "latency_s": "long", "stages": [{**content["stages"][0], "tokens": "many"}]}
    told = wrong(tmp_path, broken)
    assert "latency_s" in told and "stages.0.tokens" in told


def test_is_a_file_of_before_the_limits_read(file: Path, tmp_path: Path) -> None:
    content = json.loads(file.read_text())
    del content["limits"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = Result.load(tmp_path / "old.json")
    assert old.latency_s == content["latency_s"] and not old.has_limits


def test_do_frames_hold_the_rows(result: Result) -> None:
    pandas = pytest.importorskip("pandas")
    for by in ("operator", "component", "class", "stage", "part", "tile", "limit", "assumption"):
        frame = result.to_dataframe(by)
        assert isinstance(frame, pandas.DataFrame)
        assert len(frame) == len(result.to_table(by)) > 0
        assert frame.attrs["chip"] == "atleus"
    for by in ("component", "class", "stage", "part"):
        assert result.to_dataframe(by)["energy_J"].sum() == pytest.approx(result.energy_J, rel=1e-12)


def test_is_missing_pandas_named(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TierformError, match=r"'pandas'(.|\n)*tierform\[report\]"):
        result.to_dataframe("stage")
    with pytest.raises(TierformError, match="no such table"):
        result.to_dataframe("stages")


class _Reader(HTMLParser):
    """Tags that are open, and what stands between them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"style", "colspan"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    assert reader.seen <= {"div", "table", "tr", "th", "td"}
    return reader


def test_are_cards_small_and_whole(result: Result, file: Path) -> None:
    chip = tierform.load_chip("atleus")
    work = expand(tierform.load_model("bert-base"), TASKS["tune"][1])
    for shown, words in (
        (result, ("bert-base on atleus", "backward", "limited by")),
        (Result.load(file), ("bert-base on atleus", "backward", "limited by")),
        (chip, ("atleus", "reram-3", "crossbar", "hbm2")),
        (work, ("bert-base", "update", "optimizer")),
    ):
        html = shown._repr_html_()  # type: ignore[attr-defined]
        assert len(html) < 12_000
        for word in words:
            assert word in read(html).text
    assert Result.load(file)._repr_html_() == result._repr_html_()


def test_is_every_text_of_a_card_escaped() -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\"'&"
    html = card(hostile, hostile, [(hostile, hostile)], [((hostile,), [(hostile,)])], [hostile])
    assert "<script" not in html and "\x1b" not in html
    assert read(html).text.count("<script>alert(1)</script>") == 7
    named = tierform.load_chip("atleus").vary({"description": hostile})
    assert "<script" not in named._repr_html_()


def test_are_texts_at_the_prompt_short(result: Result) -> None:
    chip = tierform.load_chip("atleus")
    work = expand(tierform.load_model("bert-base"), TASKS["tune"][1])
    for shown in (result, chip, work):
        assert len(repr(shown)) < 120 and repr(shown).startswith(f"<{type(shown).__name__}: ")
    assert repr(chip).startswith("<Chip: atleus, 3d, 4 dies, 64 tiles, ")


def test_do_jobs_of_different_workloads_differ() -> None:
    """The short text of a workload is for people; the key of a job tells all of it."""
    model, chip = tierform.load_model("gpt2"), "a100"
    jobs = [
        Job(expand(model, tierform.FineTuning(tierform.LoRA(rank), batch=2, sequence=64)), None, chip)
        for rank in (8, 8, 9)
    ]
    assert jobs[0] == jobs[1] and jobs[0] != jobs[2]
