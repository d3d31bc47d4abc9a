"""Does kept machine code run whether the compiler is not there, is imported first, or compiles afterwards?"""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN = """
from tierform.memory.cycle.engine import CycleMemory
from tierform.memory.standard import load_dram
from tierform.memory.traffic import requests

spec = load_dram("ddr4-2400").with_channels(1)
cycles = CycleMemory(spec).run(requests(spec, "stream", 40_000, 1.0)).cycles
"""
COMPILE = """
import numpy as np
from numba import njit

@njit
def halves(count):
    if count < 0:
        raise ValueError("negative")
    return np.arange(count) / 2

assert halves(5)[4] == 2.0
try:
    halves(-1)
except ValueError:
    pass
else:
    raise AssertionError("nothing was raised")
"""


def _cycles(code: str) -> int:
    done = subprocess.run([sys.executable, "-c", code + "\nprint(cycles)"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture(scope="module")
def alone() -> int:
    _cycles(RUN)  # keeps the code
    return _cycles(RUN + "\nimport sys\nassert 'numba.core.compiler' not in sys.modules")


@pytest.mark.parametrize(
    "code", ["import numba\n" + RUN, RUN + COMPILE, COMPILE + RUN], ids=["first", "after", "before"]
)
def test_does_a_run_count_the_same_beside_the_compiler(alone: int, code: str) -> None:
    assert _cycles(code) == alone
