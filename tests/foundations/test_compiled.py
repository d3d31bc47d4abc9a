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
