"""Does every room import only from the rooms before it, and does starting up load nothing heavy?"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tierform
from tierform import library
from tierform.cli.main import COMMANDS
from tierform.rooms import ROOMS

ROOT = Path(tierform.__file__).parent
ORDER = [name for name, _ in ROOMS]


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        found |= {name.split(".")[1] for name in names if name.startswith("tierform.") and name.split(".")[1] in ORDER}
    return found


@pytest.mark.parametrize("room", ORDER)
def test_do_imports_follow_the_flow_of_information(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for other in _imports(path)
        if ORDER.index(other) > ORDER.index(room)
    ]
    assert wrong == []


def test_is_every_room_in_the_list_and_no_other() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders - {"library"} == set(ORDER)


def test_do_the_documents_show_the_rooms_in_their_order() -> None:
    table = (ROOT.parent.parent / "docs" / "how-it-works.md").read_text()
    rows = [f"| `{name}` | {question} |" for name, question in ROOMS]
    assert "\n".join(rows) in table


def test_does_no_foundation_import_a_room() -> None:
    # tierform/__init__.py only names the rooms' objects for type checkers and loads them when asked.
    wrong = [
        path.name for path in ROOT.glob("*.py") if path.name not in ("__init__.py", "__main__.py") and _imports(path)
    ]
    assert wrong == []


def _modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_does_the_help_page_load_nothing_heavy() -> None:
    code = "from tierform.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    heavy = {"numpy", "scipy", "numba", "torch", "pydantic", "ruamel", "rich", "plotly", "jinja2"}
    assert _modules_after(code) & heavy == set()


def test_does_importing_the_package_load_nothing_heavy() -> None:
    heavy = {"numpy", "scipy", "numba", "torch", "pydantic", "ruamel", "rich", "click"}
    assert _modules_after("import tierform") & heavy == set()


def test_does_the_analytic_path_load_nothing_heavy_but_the_compiler_of_the_schedule() -> None:
    code = (
        "import tierform\n"
        "tierform.simulate('bert-base', tierform.Inference(batch=1, sequence=128), 'atleus')\n"
        "tierform.simulate('gpt2', tierform.FineTuning(), 'a100')"
    )
    assert _modules_after(code) & {"torch", "transformers", "plotly", "pandas"} == set()


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_does_every_command_have_a_help_page(verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tierform", verb, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_is_every_source_of_the_library_cited_in_full() -> None:
    for key in library._sources():
        assert len(library.citation(key).text) > 20


def test_do_the_public_names_resolve() -> None:
    for name in tierform.__all__:
        assert getattr(tierform, name) is not None
    with pytest.raises(AttributeError):
        getattr(tierform, "no_such_name")
