"""Studies of an exploration as the pages take them: the view of a study's file, and designs as whole runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from tierform.errors import fail
from tierform.report.study_view import study_view, winners_of
from tierform.studio.runs import Content, run_content

if TYPE_CHECKING:
    from tierform.exploration.study import Study


def is_study(file: Path) -> bool:
    """Whether a file is a study's; it is only read."""
    try:
        with sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True) as base:
            return base.execute("SELECT 1 FROM study WHERE key = 'fingerprint'").fetchone() is not None
    except sqlite3.Error:
        return False


def open_file(file: Path, number: int, *, named: str = "") -> Content:
    """The content of a study's file; TierformError where it is none."""
    from tierform.exploration.study import open_study

    if not is_study(file):
        fail("this file is not a study", file=str(file), fix="Open what `tierform explore ... --study FILE` wrote.")
    study = open_study(file)
    try:
        return study_run(study, number, file=named)
    finally:
        study.base.close()


def study_run(study: Study, number: int, *, file: str = "", designs: bool = False) -> Content:
    """A study for the pages, with the knee and the best of each objective as runs where they are asked for."""
    view = study_view(study)
    made = designs_of(study) if designs else {}
    return {"id": str(number), "name": str(view["name"]), "file": file, "view": view, "designs": made}


def designs_of(study: Study) -> dict[str, Content]:
    """Runs of designs by the number of their point."""
    from tierform.exploration.evaluator import JobEvaluator

    if study.space.service:  # its points are no runs of one job
        return {}
    evaluator = JobEvaluator(study.space)
    return {
        str(row.number): _named(run_content(evaluator.result(row.chosen), 0), study, row.number)
        for row in winners_of(study)
    }


def design(file: Path, number: int) -> Content:
    """One design of a study's file as a run; TierformError where it has no such point or cannot be."""
    from tierform.exploration.evaluator import JobEvaluator
    from tierform.exploration.study import open_study

    study = open_study(file)
    try:
        rows = study.base.rows([number])
        if not rows:
            fail("the study has no such point that is done", key="point", value=number)
        made = run_content(JobEvaluator(study.space).result(rows[0].chosen), 0, live=True)
        return _named(made, study, number)
    finally:
        study.base.close()


def design_text(file: Path, number: int) -> str:
    """The chip of a design as the text of its file."""
    import tempfile

    from tierform.chip.description import Chip
    from tierform.exploration.evaluator import JobEvaluator
    from tierform.exploration.study import open_study

    study = open_study(file)
    try:
        rows = study.base.rows([number])
        if not rows:
            fail("the study has no such point that is done", key="point", value=number)
        chip = JobEvaluator(study.space).job(rows[0].chosen).chip
        assert isinstance(chip, Chip)
        with tempfile.TemporaryDirectory(prefix="tierform-") as folder:
            chip.write(Path(folder) / "chip.yaml")
            return (Path(folder) / "chip.yaml").read_text(encoding="utf-8")
    finally:
        study.base.close()


def _named(run: Content, study: Study, number: int) -> Content:
    return {**run, "id": f"{study.space.name}-{number}", "name": f"{study.space.name}, point {number}"}
