"""Runs the notebooks of ``examples/`` cell by cell, and writes what they give into them.

``python tests/report/notebooks.py`` runs all and keeps their outputs; the tests run them and compare.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
Cell = dict[str, Any]


def run(notebook: dict[str, Any], folder: Path) -> list[list[Cell]]:
    """The outputs of each code cell, run one after the other in a folder of its own."""
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        return [_cell("".join(cell["source"]), names) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    finally:
        os.chdir(before)


def _cell(source: str, names: dict[str, Any]) -> list[Cell]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as told:
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    found: list[Cell] = []
    if told.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": told.getvalue().splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if (html := getattr(value, "_repr_html_", None)) is not None:
            data["text/html"] = str(html()).splitlines(keepends=True)
        found.append({"output_type": "execute_result", "metadata": {}, "data": data, "execution_count": None})
    return found


def texts(outputs: list[list[Cell]]) -> list[list[str]]:
    """What is compared: printed text, and the plain text of a value."""
    return [["".join(one.get("text") or one["data"]["text/plain"]) for one in cell] for cell in outputs]


def kept(notebook: dict[str, Any]) -> list[list[Cell]]:
    """The outputs that a notebook holds."""
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def main() -> None:
    """Run every notebook (or those named) and keep what it gives."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or sorted(EXAMPLES.glob("*.ipynb"))
    for path in chosen:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            outputs = run(notebook, Path(folder))
        for number, (cell, found) in enumerate(
            zip((one for one in notebook["cells"] if one["cell_type"] == "code"), outputs, strict=True), start=1
        ):
            cell["execution_count"] = number
            cell["outputs"] = [
                {**one, "execution_count": number} if one["output_type"] == "execute_result" else one for one in found
            ]
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.name}: {time.process_time() - begin:.1f} s")


if __name__ == "__main__":
    main()
