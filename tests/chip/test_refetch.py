"""Does the buffer decide the traffic: the best tiling, never more with more room, never above SCALE-Sim's?"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilings import fewest_bytes

import tierform.validation
from tierform.chip.component import ONCE, BufferHolder, Refetch
from tierform.chip.description import load_component
from tierform.chip.sample_operators import elementwise, product
from tierform.chip.systolic.refetch import Widths, best_refetch
from tierform.workload.operator import Kind, Operand, Operator, Role

BYTES = Widths(1.0, 1.0, 1.0, 4.0)
TABLE = Path(tierform.validation.__file__).parent / "tables" / "systolic_scale_sim.csv"
SIZE = st.integers(1, 3000)


def traffic_B(found: Refetch, m: int, n: int, k: int, widths: Widths = BYTES) -> float:
    inputs = m * k * widths.first * found.first + k * n * widths.second * found.second
    return inputs + m * n * widths.result * (found.result_read + found.result_write)


def test_without_a_buffer_operands_stream_past_every_fold() -> None:
    """64 x 64 x 64 on 16 x 16: four folds each way.  Weights in place: inputs come 4 times, sums return 3 times."""
    found = best_refetch("ws", 64, 64, 64, 16, 16, 0.0, BYTES)
    assert found == Refetch(first=4.0, second=1.0, result_read=3 * 4.0, result_write=1 + 3 * 4.0)
    assert best_refetch("os", 64, 64, 64, 16, 16, 0.0, BYTES) == Refetch(first=4.0, second=4.0)
    assert best_refetch("is", 64, 64, 64, 16, 16, 0.0, BYTES).second == 4.0


def test_with_room_for_the_weights_nothing_comes_twice() -> None:
    """All 64 x 64 weights of one byte are kept, and one row of inputs (64 bytes) and of sums (64 of four bytes)."""
    least = 64 * 64 + 64 + 64 * 4
    assert best_refetch("ws", 64, 64, 64, 16, 16, least, BYTES) == ONCE
    assert best_refetch("ws", 64, 64, 64, 16, 16, least - 1, BYTES) != ONCE


@settings(max_examples=60, deadline=None)
@given(
    dataflow=st.sampled_from(["ws", "os", "is"]),
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
    array=st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 2)]),
    room=st.integers(0, 60),
    widths=st.sampled_from([BYTES, Widths(1.0, 0.5, 1.0, 2.0), Widths(2.0, 1.0, 2.0, 4.0)]),
)
def test_no_tiling_moves_less(
    dataflow: str, sizes: tuple[int, int, int], array: tuple[int, int], room: int, widths: Widths
) -> None:
    m, n, k = sizes
    w = widths
    spatial, by_operand, result = {
        "ws": ((k, n, m), (w.second, w.first, w.partial), 2),
        "os": ((m, n, k), (w.partial, w.first, w.second), 0),
        "is": ((k, m, n), (w.first, w.second, w.partial), 2),
    }[dataflow]
    found = best_refetch(dataflow, m, n, k, *array, float(room), widths)
    searched = fewest_bytes(spatial, (*array, 1), room, by_operand, result, w.result)
    assert traffic_B(found, m, n, k, widths) == pytest.approx(searched)


@settings(max_examples=300, deadline=None)
@given(
    dataflow=st.sampled_from(["ws", "os", "is"]),
    m=SIZE,
    n=SIZE,
    k=SIZE,
    array=st.sampled_from([(128, 32), (16, 16), (8, 64)]),
    room=st.floats(0, 1e7),
    more=st.floats(1, 8),
)
def test_more_room_never_means_more_traffic(
    dataflow: str, m: int, n: int, k: int, array: tuple[int, int], room: float, more: float
) -> None:
    small, large = (best_refetch(dataflow, m, n, k, *array, size, BYTES) for size in (room, room * more))
    assert traffic_B(large, m, n, k) <= traffic_B(small, m, n, k) * (1 + 1e-9)
    assert min(small.first, small.second, small.result_write) >= 1 and small.result_read >= 0


@settings(max_examples=100, deadline=None)
@given(dataflow=st.sampled_from(["ws", "os", "is"]), m=SIZE, n=SIZE, k=SIZE, room=st.integers(0, 10**6))
def test_traffic_is_not_below_what_the_room_allows(dataflow: str, m: int, n: int, k: int, room: int) -> None:
    """In one-byte words, S of them on chip: at least 2 m n k / sqrt(S) - 2 S cross (D. Irony and others, JPDC 2004).

    The registers of 16 x 16 elements count as room, and their inputs on the way.
    """
    words = Widths(1.0, 1.0, 1.0, 1.0)
    found = best_refetch(dataflow, m, n, k, 16, 16, float(room), words)
    room += 16 * 16 + 2 * 16
    assert traffic_B(found, m, n, k, words) >= m * n * k / (2 * 2**0.5 * room**0.5) - room


def scale_sim_rows() -> list[dict[str, str]]:
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return [row for row in csv.DictReader(lines) if "conv" not in row["layer"] and not row["sparsity"]]


@pytest.mark.parametrize("row", scale_sim_rows(), ids=lambda row: row["case"])
def test_dram_words_beside_scale_sims(row: dict[str, str]) -> None:
    """Inputs and weights: equal where SCALE-Sim fetches all of them once, never more than SCALE-Sim's.

    SCALE-Sim does not add partial sums up in its SRAM: for weights and inputs in place it writes every fold's, and
    reads none.  Ours keeps them where they fit, so results are written once.
    """
    m, n, k = (int(part) for part in row["layer"].split("x"))
    room = sum(int(part) for part in row["sram_kB"].split("/")) * 1024 / 2
    words = Widths(1.0, 1.0, 1.0, 1.0)
    found = best_refetch(row["dataflow"], m, n, k, int(row["rows"]), int(row["columns"]), room, words)
    theirs = int(row["dram_input_reads"]) + int(row["dram_weight_reads"])
    ours = m * k * found.first + k * n * found.second
    assert ours <= theirs
    if theirs == m * k + k * n:
        assert ours == theirs
    assert traffic_B(found, m, n, k, words) <= theirs + int(row["dram_output_writes"])


def arrays(units: int = 1, capacity: str = "512 KiB", **changes: object) -> BufferHolder:
    sized = {"value": capacity, "kind": "assumed", "note": "test"}
    part = load_component("systolic", units, "systolic-128x32-10nm", {"sram_capacity": sized, **changes})
    assert isinstance(part, BufferHolder)
    return part


def test_one_kibibyte_and_two_mebibytes_differ() -> None:
    """BERT-large's second FFN product on 512 tokens, outputs in place on 128 x 32 elements: 4 x 32 folds.

    1 KiB hold nothing: 32 * 512 * 4096 + 4 * 4096 * 1024 + 512 * 1024 bytes.  2 MiB hold most of what comes again.
    """
    operator = product(512, 1024, 4096)
    small, large = arrays(capacity="1 KiB").refetch(operator), arrays(capacity="2 MiB").refetch(operator)
    assert traffic_B(large, 512, 1024, 4096) < 2 * traffic_B(ONCE, 512, 1024, 4096)
    assert traffic_B(small, 512, 1024, 4096) == 84_410_368


def test_serial_arrays_use_the_whole_buffer() -> None:
    operator = product(2048, 2048, 2048)
    halved = arrays(capacity="1 MiB").refetch(operator)
    assert arrays(capacity="512 KiB", overlap="serial").refetch(operator).first <= halved.first
    sizes = [
        traffic_B(arrays(capacity="1 MiB", **c).refetch(operator), 2048, 2048, 2048)
        for c in ({}, {"overlap": "serial"})
    ]
    assert sizes[1] < sizes[0]


def test_queries_of_one_head_of_keys_belong_together() -> None:
    """Eight heads of queries share one of keys: its keys come as often as for one product of eight times the rows."""

    def scores(heads: int, shared: int) -> Operator:
        made = product(512, 4096, 128, held=False, batch=heads)
        keys = Operand("k", (heads // shared, 128, 4096), "int8", Role.KV_CACHE)
        return Operator(**{**made.__dict__, "inputs": (made.inputs[0], keys)})

    one = arrays(capacity="64 KiB", dataflow="ws")
    together, alone = one.refetch(scores(8, 8)), one.refetch(product(8 * 512, 4096, 128, held=False))
    assert together == alone


@pytest.mark.parametrize("kind", [Kind.SOFTMAX, Kind.NORMALIZATION, Kind.LOSS])
def test_a_long_row_comes_twice_through_a_small_vector_buffer(kind: Kind) -> None:
    """Rows of 2^16 bf16 values, 128 KiB; half of 64 KiB holds a quarter of one, so three quarters come again."""
    part = load_component("vector", 1, "vector-128-10nm")
    assert isinstance(part, BufferHolder)
    assert part.refetch(elementwise(kind, 2**16, precision="bf16")) == Refetch(first=1.75)
    assert part.refetch(elementwise(kind, 2**14, precision="bf16")) == ONCE
    assert part.refetch(elementwise(Kind.ELEMENTWISE, 2**16, precision="bf16")) == ONCE
