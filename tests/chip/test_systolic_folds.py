"""Do the closed forms say what an array, simulated element by element, does?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pe_array import Hazard, output_stationary, weight_stationary

from tierform.chip.systolic.folds import (
    DATAFLOWS,
    OVERLAPS,
    Sparsity,
    accesses,
    cycles,
    fold_count,
    mapping_efficiency,
)

sizes = st.integers(1, 9)
arrays = st.tuples(st.integers(1, 4), st.integers(1, 4))


def product(m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Operands without zeros, so that a lost or doubled value shows."""
    rng = np.random.default_rng(m * 10_000 + n * 100 + k)
    return rng.integers(1, 9, (m, k)), rng.integers(1, 9, (k, n))


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("dataflow", DATAFLOWS)
@settings(max_examples=40, deadline=None)
@given(m=sizes, n=sizes, k=sizes, array=arrays)
def test_cycles_and_values_of_every_element(dataflow, overlap, m, n, k, array):
    rows, columns = array
    a, b = product(m, n, k)
    if dataflow == "os":
        result, taken = output_stationary(a, b, rows, columns, overlap)
    elif dataflow == "ws":
        result, taken = weight_stationary(a, b, rows, columns, overlap)
    else:  # the inputs stay: the transposed product with the operands' parts exchanged
        result, taken = weight_stationary(b.T, a.T, rows, columns, overlap)
        result = result.T
    assert (result == a @ b).all()
    assert taken == cycles(dataflow, m, n, k, rows, columns, overlap)


@settings(max_examples=30, deadline=None)
@given(m=sizes, k=st.integers(2, 9), array=arrays)
def test_a_pipelined_fold_cannot_start_a_cycle_earlier(m, k, array):
    rows, columns = array
    a, b = product(m, 2 * columns, k)
    with pytest.raises(Hazard):
        weight_stationary(a, b, rows, columns, "pipelined", hurry=1)


@given(
    m=st.integers(1, 300),
    n=st.integers(1, 300),
    k=st.integers(1, 300),
    array=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_hiding_more_never_takes_longer(m, n, k, array):
    for dataflow in DATAFLOWS:
        serial, buffered, pipelined = (cycles(dataflow, m, n, k, *array, overlap) for overlap in OVERLAPS)
        assert pipelined <= buffered <= serial
        assert m * n * k <= pipelined * array[0] * array[1]


@given(
    m=st.integers(1, 60),
    n=st.integers(1, 60),
    k=st.integers(1, 60),
    array=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_accesses_are_counted_fold_by_fold(m, n, k, array):
    rows, columns = array
    for dataflow in DATAFLOWS:
        inputs = weights = writes = partial = folds = used = 0
        shape = {"ws": (k, n), "os": (m, n), "is": (k, m)}[dataflow]
        for top in range(0, shape[0], rows):
            for left in range(0, shape[1], columns):
                r, c = min(rows, shape[0] - top), min(columns, shape[1] - left)
                folds, used = folds + 1, used + r * c
                if dataflow == "ws":
                    inputs, weights, writes = inputs + m * r, weights + r * c, writes + m * c
                    partial += m * c if top else 0
                elif dataflow == "os":
                    inputs, weights, writes = inputs + r * k, weights + k * c, writes + r * c
                else:
                    inputs, weights, writes = inputs + r * c, weights + n * r, writes + n * c
                    partial += n * c if top else 0
        found = accesses(dataflow, m, n, k, rows, columns)
        assert (found.inputs, found.weights, found.output_writes, found.partial_reads) == (
            inputs,
            weights,
            writes,
            partial,
        )
        assert fold_count(dataflow, m, n, k, rows, columns) == folds
        assert mapping_efficiency(dataflow, m, n, k, rows, columns) == pytest.approx(used / (folds * rows * columns))


@given(k=st.integers(1, 200), block=st.integers(1, 16), data=st.data())
def test_packed_depth_counts_the_kept_weights(k, block, data):
    kept = data.draw(st.integers(1, block))
    pattern = [i % block < kept for i in range(k)]
    assert Sparsity(kept, block).depth(k) == sum(pattern)
    assert 2 ** Sparsity(kept, block).index_bits >= (block if kept < block else 1)
