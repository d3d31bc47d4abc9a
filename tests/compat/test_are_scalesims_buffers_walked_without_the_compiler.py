"""Do the loops over SCALE-Sim's buffers run from kept machine code, with as little room as they are given?"""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from tierform.compat.scalesim import buffers
from tierform.compat.scalesim import records as r
from tierform.compat.scalesim.accounting import scale_sim
from tierform.compat.scalesim.buffers import Memory, bounded, write_record
from tierform.compat.scalesim.files import Configuration, LayerShape
from tierform.compat.scalesim.loops import call
from tierform.compat.scalesim.plan import plan_of
from tierform.compat.scalesim.report import COMPUTE, DETAIL

LAYER = LayerShape("x", 90, 70, 50)
ARRAY = Configuration("t", 8, 4, 1024, 1024, 2048, "ws", False, 3, 5, 2, False, "csr", ())
WALK = """
import sys
from tierform.compat.scalesim.accounting import scale_sim
from tierform.compat.scalesim.files import Configuration, LayerShape
layer = LayerShape("x", 90, 70, 50)
scale_sim(layer, Configuration("t", 8, 4, 1024, 1024, 2048, "ws", False, 3, 5, 2, False, "csr", ()))
scale_sim(layer, Configuration("t", 8, 4, 1024, 1024, 2048, "ws", True, 10, 10, 10, False, "csr", ()))
assert not {"numba", "scipy", "torch"} & set(sys.modules), sorted(sys.modules)
"""


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_is_a_ring_that_is_too_short_made_longer(dataflow: str) -> None:
    array = dataclasses.replace(ARRAY, dataflow=dataflow)
    plan, latencies = plan_of(LAYER, array), np.arange(900) % 37
    memory = Memory(None, (latencies, latencies[::2].copy(), latencies[::3].copy()))
    whole = bounded(LAYER, plan, array, memory)
    rings = [2**power for power in range(16)]
    found = [buffers._walk(LAYER, plan, array, memory, ring) for ring in rings]
    assert found[0] is None  # a single line
    enough = next(number for number, one in enumerate(found) if one is not None)
    for one in found[enough:]:  # the first ring that is long enough gives what any longer one gives
        assert one is not None
        assert (one.total, one.stall, one.spans, one.moved) == (whole.total, whole.stall, whole.spans, whole.moved)
        for mine, right in zip(one.requests, whole.requests, strict=True):
            assert np.array_equal(mine.fetches, right.fetches)
    assert rings[enough] <= 4 * ARRAY.ofmap_words // ARRAY.ofmap_bandwidth


def test_are_words_written_by_hand_drained_in_their_cycles() -> None:
    # Two folds of an array of 1 x 2 with four steps each; a buffer of four words that sends lines of two.
    # Lines 0 to 4 give 1, 2, 2, 2, 1 words (a step leaves one column a line later), twice: 16 words.
    found, none = np.zeros(3, np.int64), np.zeros(0, np.int64)
    record = write_record(4, 2, 16)
    output, folds = np.array([0, 0, 4, 1]), np.array([[2, 1], [2, 1]])
    stalls = np.zeros(10, np.int64)
    table = [found, np.array([5, 2, 1]), output, folds, record, np.zeros(16, np.int64), stalls, none, none, none]
    assert call("drain_writes", table) == 0
    assert record[r.WRITES] == 16
    assert record[r.FREE] == 4
    # In line 1 less than half of the buffer is free: a line leaves in that cycle, and nothing ever waits.
    assert (found[0], record[r.FIRST]) == (0, 1)


# SCALE-Sim 3's own regression runs (its repository of 2025-08-15, test/general): a product of 256 x 128 x 256 on 32 x
# 32 elements with 64 kB for each operand, ten words a cycle.  Cycles with prefetch, cycles, stalls; then first cycle,
# last cycle and words of inputs, weights and outputs in the SRAM, and the same in the DRAM.
_REGRESSION = """
ws 59002 52447 41248 33 52417 262144 1 52130 32768 63 52447 262144 -3277 49169 524320 -3277 -1 32770 11831 55725 262175
os 59000 52447 42272 1 52417 262144 1 52417 262144 255 52447 34816 -3277 49169 524320 -3277 -1 32770 52447 55723 32768
is 29815 19984 5777 1 19795 65536 33 19954 262144 63 19984 262144 -3277 9833 131080 -3277 -1 32770 1839 26538 262157
"""


@pytest.mark.parametrize("row", _REGRESSION.split("\n")[1:-1])
def test_are_the_figures_of_scalesims_own_regression_runs_found(row: str) -> None:
    dataflow, *numbers = row.split()
    array = Configuration("t", 32, 32, 65536, 65536, 65536, dataflow, False, 10, 10, 10, False, "csr", ())
    figures = scale_sim(LayerShape("Test 1", 256, 128, 256), array).figures
    assert [figures[name] for name in (*COMPUTE[:3], *DETAIL)] == [int(number) for number in numbers]


def test_does_a_second_process_load_no_compiler() -> None:
    for stall_free in (False, True):  # compiled and kept, if they were not yet
        scale_sim(LAYER, dataclasses.replace(ARRAY, calculate_bandwidth=stall_free))
    subprocess.run([sys.executable, "-c", WALK], check=True)


def test_are_arrays_of_other_kinds_refused() -> None:
    with pytest.raises(TypeError, match="64 bits"):
        call("asking_lines", [np.zeros(2, np.int32)])
    with pytest.raises(TypeError, match="one piece"):
        call("asking_lines", [np.zeros((4, 2), np.int64)[:, 0]])
