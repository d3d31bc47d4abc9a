"""Does what is offloaded cross the link to the host each time it is used, and leave its room to others?

Llama 3.2 1B, 1,235,814,400 numbers, full training on one H100: AdamW keeps 12 bytes a number in fp32.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierform import FineTuning, Inference, LoRA, Result, TierformError, Training, library, load_chip, simulate
from tierform.simulation.offload import load_host
from tierform.workload import expand, load_model
from tierform.workload.task import Task

NUMBERS = 1_235_814_400
TRAINING = Training(batch=1, sequence=128)
LINK = 50e9  # bytes a second of pcie5-dram, each way


def run(task: Task, chip: object = "h100", model: str = "llama-3.2-1b") -> Result:
    return simulate(model, task, chip, thermal="none")  # type: ignore[arg-type]


def seconds(result: Result, stage: str) -> float:
    return sum(item.latency_s for item in result.stages if item.name.startswith(stage))


def small(gigabytes: float) -> object:
    return load_chip("h100").vary({"components.gpu.memory_capacity": f"{gigabytes} GB"})


def test_states_come_and_go_in_the_update() -> None:
    """14,829,772,800 bytes each way at the same time: 296.6 ms."""
    here, away = run(TRAINING), run(replace(TRAINING, offload=("optimizer",)))
    assert seconds(away, "update") == pytest.approx(12 * NUMBERS / LINK)
    assert seconds(away, "forward") == pytest.approx(seconds(here, "forward"))
    assert away.memory_footprint_B == here.memory_footprint_B


def test_a_chip_needs_no_room_for_what_is_away() -> None:
    """8 GB hold weights, gradients and activations, not 14.8 GB of states."""
    with pytest.raises(TierformError, match="does not fit"):
        run(TRAINING, small(8))
    assert run(replace(TRAINING, offload=("optimizer",)), small(8)).latency_s > 0.29


def test_pages_leave_only_where_they_must() -> None:
    whole = run(replace(TRAINING, offload=("paged-optimizer",)))
    assert seconds(whole, "update") == pytest.approx(seconds(run(TRAINING), "update"))
    near = sum(
        size for part, size in whole.memory_footprint_B.items() if part not in ("optimizer_states", "master_weights")
    )
    tight = run(replace(TRAINING, offload=("paged-optimizer",)), small(16))
    assert seconds(tight, "update") == pytest.approx((near + 12 * NUMBERS - 16e9) / LINK)


def test_weights_come_for_every_pass() -> None:
    """All but the word table's unused rows (128,256 x 2048 numbers, tied to the head, which needs them)."""
    away = run(Inference(batch=1, sequence=16, decode=2, offload=("weights",)))
    assert seconds(away, "decode") == pytest.approx(2 * 2 * NUMBERS / LINK, rel=1e-3)


def test_saved_tensors_go_and_come_back() -> None:
    """All that 16 layers and the ends keep, less twice what the fullest keeps, crosses once in each pass."""
    task = FineTuning(LoRA(8), batch=8, sequence=2048)
    workload = expand(load_model("llama-3.2-1b"), task, attention="fused")
    kept = [max(memory.saved_B) for memory in workload.memory for _ in range(memory.layers)]
    away = run(replace(task, offload=("activations",)))
    expected = (sum(kept) - 2 * max(kept)) / LINK
    assert expected > seconds(run(task), "backward") or expected > 0.1
    for stage in ("forward", "backward"):
        assert seconds(away, stage) == pytest.approx(max(expected, seconds(run(task), stage)), rel=0.02)


def test_a_slower_drive_takes_longer() -> None:
    task = replace(TRAINING, offload=("optimizer",))
    drive = load_host("nvme").file
    expected = 12 * NUMBERS / drive.write_bandwidth.value
    assert seconds(run(replace(task, host="nvme")), "update") == pytest.approx(expected)


def test_bytes_that_cross_have_energy() -> None:
    """Both ways, 160 pJ a byte, beside what the longer time draws."""
    here, away = run(TRAINING), run(replace(TRAINING, offload=("optimizer",)))
    crossed = 2 * 12 * NUMBERS * load_host("pcie5-dram").file.energy.value
    idle = 70.0 * (away.latency_s - here.latency_s)
    assert away.energy_J - here.energy_J == pytest.approx(crossed + idle, rel=1e-3)


@pytest.mark.parametrize("name", library.names("hosts"))
def test_hosts_say_where_their_numbers_come_from(name: str) -> None:
    host = load_host(name)
    assert host.name == name and all(line.note for line in host.assumptions)
    result = run(replace(TRAINING, offload=("optimizer",), host=name))
    assert set(host.assumptions) <= set(result.assumptions)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Training(offload=("optimiser",)), "optimizer"),
        (lambda: Training(offload=("kv-cache",)), "cannot be offloaded"),
        (lambda: Inference(offload=("gradients",)), "cannot be offloaded"),
        (lambda: Training(offload=("optimizer", "paged-optimizer")), "one of the two"),
        (lambda: run(replace(TRAINING, offload=("optimizer",), host="pcie5-dran")), "pcie5-dram"),
    ],
)
def test_mistakes_are_told(make: object, words: str) -> None:
    with pytest.raises(TierformError) as caught:
        make()  # type: ignore[operator]
    assert words in str(caught.value)
