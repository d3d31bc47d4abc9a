"""Do kernels run in an installation that cannot be written, with a cache folder and without any?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tierform

_PROBE = """
from numba import njit

@njit(cache=True)
def double(value):
    return 2 * value
"""


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A copy of the foundations in which nothing can be kept, not even by the super-user."""
    package = tmp_path / "site" / "tierform"
    package.mkdir(parents=True)
    for file in Path(tierform.__file__).parent.glob("*.py"):
        shutil.copy(file, package)
    (package / "probe.py").write_text(_PROBE)
    (package / "__pycache__").touch()  # a file where the folder should be
    return tmp_path


def run(installation: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from tierform.probe import double, __file__ as file\nprint(file, double(21), len(double.stats.cache_hits))"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIERFORM", "NUMBA", "XDG"))}
    everything = {**kept, "PYTHONPATH": str(installation / "site"), "HOME": os.devnull, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=everything, check=False)


def test_do_kernels_run_anew_with_a_note_where_nothing_can_be_written(installation: Path) -> None:
    done = run(installation)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0].startswith(str(installation))
    assert done.stdout.split()[1:] == ["42", "0"]
    assert done.stderr.count("compiled anew") == 1


def test_are_kernels_kept_in_the_cache_folder(installation: Path) -> None:
    cache = {"TIERFORM_CACHE": str(installation / "cache")}
    assert run(installation, **cache).stdout.split()[1:] == ["42", "0"]
    again = run(installation, **cache)
    assert again.stdout.split()[1:] == ["42", "1"]
    assert again.stderr == ""


_LOOP = """
import ctypes
from pathlib import Path
from tierform.machine_code import load_loop

def double(value):
    return 2 * value

found = load_loop("double", [Path(__file__)], (ctypes.c_int64,), lambda: (double, "i8(i8)"))
"""


def loops_run(installation: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Load a loop kept as machine code twice in a process that has no other place than the environment names."""
    (installation / "site" / "tierform" / "loop.py").write_text(_LOOP)
    code = "import sys\nfrom tierform.loop import found\nprint(found(21), 'numba' in sys.modules)"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIERFORM", "NUMBA", "XDG"))}
    everything = {**kept, "PYTHONPATH": str(installation / "site"), "HOME": os.devnull, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=everything, check=False)


@pytest.mark.parametrize("name", ["HOME", "XDG_CACHE_HOME", "TIERFORM_CACHE"])
def test_are_loops_kept_in_a_folder_that_is_not_there_yet(installation: Path, name: str) -> None:
    # A home in which no program has kept anything: even ~/.cache has to be made.
    place = installation / "home" / "new"
    place.parent.mkdir()
    if name == "HOME":
        place.mkdir()
    first = loops_run(installation, **{name: str(place)})
    assert first.stdout.split() == ["42", "True"], first.stderr
    assert list(place.rglob("double-*.machine-code"))
    again = loops_run(installation, **{name: str(place)})
    assert again.stdout.split() == ["42", "False"]
    assert first.stderr == again.stderr == ""


def test_do_loops_run_anew_with_a_note_where_nothing_can_be_written(installation: Path) -> None:
    # The super-user could make a home that is not there, and must not.
    nobody = {"HOME": str(installation / "nonexistent")}
    for environment in ({}, nobody, {"TIERFORM_CACHE": "off"}, {"TIERFORM_CACHE": os.devnull + "/cache"}):
        done = loops_run(installation, **environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["42", "True"]
        assert done.stderr.count("compiled anew") == 1
    assert not (installation / "nonexistent").exists()
