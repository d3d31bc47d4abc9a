"""Do small all-reduces of a serving system take their own kernels' time, and large ones the library's?

Measured figures: AIConfigurator's tables of vLLM's all-reduce in graphs (0.19.0 on H100 and B200, 0.14.0 on A100).
"""

from __future__ import annotations

from itertools import pairwise

import pytest

import tierform
from tierform.chip.description import Chip, load_chip
from tierform.chip.gpu import Gpu
from tierform.chip.gpu.collectives import DIRECT_BELOW_B, direct_s
from tierform.simulation.collectives import Interconnect
from tierform.workload import Inference, Parallelism, expand, load_model
from tierform.workload.operator import Kind

KIB = 1024


def gpu(chip: Chip) -> Gpu:
    return next(part for part in chip.components.values() if isinstance(part, Gpu))


@pytest.mark.parametrize(
    ("name", "gpus", "size_B", "measured_us"),
    [
        ("h100", 2, 8 * KIB, 4.49),
        ("h100", 2, 4096 * KIB, 20.1),
        ("h100", 4, 256 * KIB, 7.1),
        ("h100", 4, 512 * KIB, 11.3),
        ("h100", 4, 4096 * KIB, 30.3),
        ("h100", 8, 128 * KIB, 7.8),
        ("h100", 8, 256 * KIB, 19.2),
        ("h100", 8, 1024 * KIB, 25.4),
        ("a100", 2, 512 * KIB, 8.0),
        ("a100", 4, 1024 * KIB, 18.3),
        ("a100", 8, 512 * KIB, 18.9),
        ("b200", 2, 2048 * KIB, 21.4),
        ("b200", 8, 256 * KIB, 26.2),
    ],
)
def test_is_a_small_all_reduce_within_an_eighth_of_its_measured_time(
    name: str, gpus: int, size_B: int, measured_us: float
) -> None:
    part = gpu(load_chip(name))
    found = part.collective_s("all_reduce", gpus, size_B, direct=True)
    assert found is not None
    assert found * 1e6 == pytest.approx(measured_us, rel=0.15)


def test_is_one_shot_its_start_and_the_bytes_of_all_others() -> None:
    links = gpu(load_chip("h100")).parameters.links
    assert links is not None and links.direct is not None
    one = 4.4e-6 + 2 * 0.0626e-6 + 3 * 65536 / (450e9 * 0.611)
    two = 1.09e-6 + 2 * 2.84e-6 + 2 * 3 / 4 * 2**20 / (450e9 * 0.526)
    assert direct_s(links.direct, 450e9, 4, 65536) == pytest.approx(one, rel=1e-12)
    assert direct_s(links.direct, 450e9, 4, 2**20) == pytest.approx(two, rel=1e-12)
    assert direct_s(links.direct, 450e9, 4, 1e9) == direct_s(links.direct, 450e9, 4, DIRECT_BELOW_B)


@pytest.mark.parametrize("name", ["a100", "h100", "h200", "b200"])
@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_is_a_larger_all_reduce_never_faster(name: str, gpus: int) -> None:
    part = gpu(load_chip(name))
    sizes = [2**power + extra for power in range(8, 28) for extra in (-1, 0, 1)]
    times = [part.collective_s("all_reduce", gpus, size, direct=True) or 0.0 for size in sizes]
    for less, more in pairwise(times):
        assert more >= less


def test_do_only_small_all_reduces_of_a_runtime_that_has_them_change() -> None:
    part = gpu(load_chip("h100"))
    for kind, size in (("all_gather", 65536), ("reduce_scatter", 65536), ("all_reduce", 2**30)):
        assert part.collective_s(kind, 4, size, direct=True) == part.collective_s(kind, 4, size)
    lone = gpu(load_chip("l40s"))
    assert lone.collective_s("all_reduce", 2, 65536, direct=True) == lone.collective_s("all_reduce", 2, 65536)


def test_does_a_served_model_pay_for_them_and_a_plain_one_for_the_library() -> None:
    chip, split = load_chip("h100"), Parallelism(tensor=4)
    workload = expand(load_model("llama-3.1-70b"), Inference(batch=8, sequence=128, decode=2), parallelism=split)
    decode = workload.stages[-1]
    reduce = next(o for block in decode.blocks for o in block.operators if o.kind is Kind.COLLECTIVE)
    assert reduce.output_B == 8 * 8192 * 2  # a token of each sequence, in 16 bits
    part = gpu(chip)
    for direct in (True, False):
        cost = Interconnect(chip, split, direct=direct).cost(reduce)
        assert cost.latency_s == part.collective_s("all_reduce", 4, reduce.output_B, direct=direct)

    def reducing_s(runtime: str) -> float:
        task = Inference(batch=8, sequence=128, decode=64)
        result = tierform.simulate("llama-3.1-70b", task, chip, parallelism=split, runtime=runtime, thermal="none")
        rows = [row for row in result.operators if row.stage.startswith("decode") and row.name.endswith("all_reduce")]
        return sum(row.busy_s for row in rows) / sum(row.times for row in rows)

    direct_s_each = part.collective_s("all_reduce", 4, reduce.output_B, direct=True)
    library_s_each = part.collective_s("all_reduce", 4, reduce.output_B)
    assert direct_s_each is not None and library_s_each is not None
    assert reducing_s("vllm") == pytest.approx(direct_s_each, rel=1e-6)
    assert reducing_s("ideal") == pytest.approx(library_s_each, rel=1e-6)
