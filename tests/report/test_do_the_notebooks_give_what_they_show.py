"""Do the notebooks of ``examples/`` run from the first cell to the last, and give what stands in them?"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from notebooks import EXAMPLES, kept, run, texts

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
NEEDS = {"compress-and-predict": ("torch", "transformers")}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_does_a_notebook_give_what_it_shows(path: Path, tmp_path: Path) -> None:
    for name in NEEDS.get(path.stem, ()):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert texts(run(notebook, tmp_path)) == texts(kept(notebook))


def test_is_there_a_notebook_for_each_tutorial() -> None:
    tutorials = {path.stem for path in (EXAMPLES.parent / "docs" / "tutorials").glob("*.md")}
    assert {path.stem for path in NOTEBOOKS} == tutorials


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_is_every_cell_run_and_small(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < 100_000 and notebook["nbformat"] == 4
