"""Does the Atleus study show what a run of ``tierform accuracy`` found, beside the published loss?"""

import json

import pytest

from tierform.errors import TierformError
from tierform.studies import StudyOptions, atleus_accuracy
from tierform.studies.atleus_accuracy import WITH, WITHOUT, Run, accuracy, lost


def a_run(chip="atleus"):
    def line(name, points=None, half=0.0, runs=9):
        return {
            "name": name,
            "accuracy": 0.9,
            "half_width": 0.004,
            "points_lost": points,
            "points_half_width": half,
            "runs": [{}] * runs,
        }

    lines = [line("adapted, ideal device", runs=3), line(WITHOUT, 2.0, 0.3), line(WITH, 0.25, 0.125)]
    return {
        "schema": "tierform.accuracy/1",
        "chip": chip,
        "task": "t",
        "unit": "images",
        "examples": 2000,
        "bits": "W8A8",
        "noise": ["programming-2pct"],
        "lines": lines,
        "settings": {"rank": 16, "targets": ["all"], "steps": 9},
    }


def options(value, quick=True):
    return StudyOptions(quick=quick, settings={} if value is None else {"accuracy": str(value)})


def test_a_given_run_becomes_the_table_with_the_published_loss_beside_it(tmp_path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(a_run()))
    table, remark = accuracy(options(file), "atleus")
    assert table is not None
    assert lost(table, WITH) == (0.25, 0.125) and lost(table, WITHOUT) == (2.0, 0.3)
    row = dict(zip(table.head, next(row for row in table.rows if row[0] == WITH), strict=True))
    assert row["published (points)"] == "< 0.5" and row["accuracy (%)"] == pytest.approx(90.0)
    assert remark.startswith("Within") and "0.25 points" in remark
    assert table.note is not None and "rank 16 on all" in table.note and "large weights" not in remark
    held = a_run()
    held["settings"]["peak_rank"] = 24
    file.write_text(json.dumps(held))
    told, remark = accuracy(options(file), "atleus")
    assert told is not None and "24 more" in told.note and "large weights" in remark
    worse = a_run()
    worse["lines"][2]["points_lost"] = 0.75
    file.write_text(json.dumps(worse))
    assert accuracy(options(file), "atleus")[1].startswith("Missed")
    for points in (0.45, 0.55):  # +- 0.125
        worse["lines"][2]["points_lost"] = points
        file.write_text(json.dumps(worse))
        assert accuracy(options(file), "atleus")[1].startswith("Not decided")


def test_runs_of_other_chips_other_files_and_other_words_are_refused(tmp_path):
    file = tmp_path / "run.json"
    for content, message in ((a_run("isaac"), "isaac"), ({"schema": "tierform.study/1"}, "tierform accuracy")):
        file.write_text(json.dumps(content))
        with pytest.raises(TierformError, match=message):
            accuracy(options(file), "atleus")
    with pytest.raises(TierformError, match="short"):
        accuracy(options("shrt"), "atleus")


def test_it_is_left_out_where_asked_and_in_quick_runs():
    for chosen in (options("none", quick=False), options(None)):
        table, remark = accuracy(chosen, "atleus")
        assert table is None and remark.startswith("Not computed")
        assert lost(table, WITH) is None


def test_a_run_of_its_own_has_every_line(monkeypatch):
    for name in ("torch", "transformers", "peft", "sklearn"):
        pytest.importorskip(name)
    monkeypatch.setitem(atleus_accuracy.RUNS, "short", Run(3, 2, 1, 1, 24))
    said = []
    chosen = StudyOptions(settings={}, say=said.append)
    table, remark = accuracy(chosen, "atleus")
    assert table is not None
    assert [row[0] for row in table.rows] == ["adapted, ideal device", "the same in float", WITHOUT, WITH]
    assert lost(table, WITH) is not None and "points with noise in training" in remark
    assert any("pre-training" in text for text in said)
