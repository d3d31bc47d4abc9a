"""Does the cycle-by-cycle network and memory agree with the formulas on the shipped chips?"""

from __future__ import annotations

import pytest

from tierform import FineTuning, Inference, LoRA, simulate
from tierform.memory import load_memory
from tierform.simulation.cycle_fidelity import stream_bandwidth_B_per_s


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["atleus", "atleus-2.5d"])
def test_do_analytic_and_cycle_times_agree_within_a_tenth(chip: str) -> None:
    for task in (FineTuning(LoRA(8), batch=2, sequence=128), Inference(batch=1, sequence=256)):
        formula = simulate("bert-base", task, chip)
        cycles = simulate("bert-base", task, chip, fidelity="cycle")
        assert cycles.fidelity == "cycle"
        assert cycles.latency_s == pytest.approx(formula.latency_s, rel=0.10)
        assert cycles.latency_s != formula.latency_s
        assert cycles.operations == formula.operations
        assert cycles.network_B == formula.network_B


@pytest.mark.slow
def test_does_the_stream_of_a_memory_agree_within_a_twentieth() -> None:
    device = load_memory("hbm2", stacks=2)
    for reads in (1.0, 0.5):
        formula = device.effective_bandwidth_B_per_s("stream", reads)
        assert stream_bandwidth_B_per_s(device, reads) == pytest.approx(formula, rel=0.05)


def test_is_a_gpu_the_same_at_either_fidelity() -> None:
    task = Inference(batch=1, sequence=64)
    assert simulate("gpt2", task, "a100", fidelity="cycle").latency_s == simulate("gpt2", task, "a100").latency_s
