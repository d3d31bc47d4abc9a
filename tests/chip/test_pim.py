"""Does DRAM with arithmetic keep the times of its DRAM, share work as it says, and refuse what it cannot do?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tierform.chip.description import load_chip, load_component
from tierform.chip.pim import DramPim, TimingFile
from tierform.chip.sample_operators import elementwise, product
from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.memory import CycleMemory, Trace, load_dram
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role

NEAR, INSIDE = "haima-dram", "transpim-layer"


def component(name: str, units: int = 1, **changes: Any) -> DramPim:
    found = load_component(name, units, name, changes or None)
    assert isinstance(found, DramPim)
    return found


@pytest.mark.parametrize(("name", "memory"), [(NEAR, "hbm2"), (INSIDE, "hbm2"), ("attacc-hbm3", "hbm3")])
def test_the_times_are_those_of_the_memory_library(name: str, memory: str) -> None:
    spec, timing = load_dram(memory), component(name).parameters.timing
    t = {key: cycles * spec.clock_s for key, cycles in spec.timings.items()}
    assert timing.row_bytes.value == spec.row_bytes and timing.column_bytes.value == spec.burst_bytes
    assert timing.column.value == pytest.approx(t["nCCDL"])
    assert timing.open.value == pytest.approx(t["nRCDRD"])
    assert timing.close.value == pytest.approx(t["nRTP"] + t["nRP"] - t["nCCDL"])
    assert timing.row_cycle.value == pytest.approx(t["nRC"])
    assert timing.activation.value == pytest.approx(max(t["nRRDS"], t["nFAW"] / 4), rel=0.07)
    assert timing.refresh.value == pytest.approx(t["nRFC"])
    assert timing.refresh_interval.value == pytest.approx(t["nREFI"])


@pytest.mark.parametrize("name", [NEAR, INSIDE])
def test_the_energies_are_those_of_the_memory_library(name: str) -> None:
    energy, p = load_dram("hbm2").energy, component(name).parameters
    assert p.activation_energy.value == pytest.approx(energy.activate_J, rel=0.01)
    assert 32 * p.read_energy.value == pytest.approx(energy.read_J, rel=0.01)


@pytest.mark.parametrize(("name", "memory"), [(NEAR, "hbm2"), ("attacc-hbm3", "hbm3")])
def test_one_bank_streams_as_fast_as_in_the_cycle_engine(name: str, memory: str) -> None:
    spec = load_dram(memory).with_channels(1)
    spec = replace(spec, controller=replace(spec.controller, refresh="all-bank"))
    position = spec.address_map().position
    row, column = np.divmod(np.arange(400 * spec.bursts_per_row, dtype=np.int64), spec.bursts_per_row)
    address = ((row << position["ro"]) + (column << position["co"])) * spec.burst_bytes
    run = CycleMemory(spec).run(Trace(np.zeros(address.size, np.int64), address, np.zeros(address.size, bool)))
    assert run.activations == pytest.approx(400, abs=40)  # a row interrupted by a refresh is opened twice
    assert component(name).bandwidth_B_per_s == pytest.approx(run.bandwidth_B_per_s, rel=0.03)


def test_a_bound_that_is_tighter_is_the_one_that_counts() -> None:
    timing = component(NEAR).parameters.timing
    unrefreshed = timing.model_copy(update={"refresh": timing.refresh.__class__(0.0, "s", "assumed", note="none")})
    assert unrefreshed.row_s == pytest.approx(14e-9 + 32 * 4e-9 + 15e-9)
    crowded = unrefreshed.model_copy(update={"banks_per_channel": 64})
    assert crowded.row_s == pytest.approx(64 * 4e-9)
    slow = unrefreshed.model_copy(update={"row_cycle": timing.refresh_interval})
    assert slow.row_s == pytest.approx(3900e-9)


def test_near_the_bank_a_matrix_is_streamed_once_for_every_vector() -> None:
    part = component(NEAR, 16)
    one, many = part.cost(product(1, 4096, 4096)), part.cost(product(64, 4096, 4096))
    rows = 4096 * 4096 / 1024 / (16 * 16)  # of each bank
    link_s = part.parameters.link_latency.value
    assert one.occupancy_s == pytest.approx(rows * part.parameters.timing.row_s + link_s + 8192 / 256e9)
    assert many.memory_read_B == 64 * one.memory_read_B == 64 * 4096 * 4096
    held = component(NEAR, 16, near_bank={"reuse": {"value": 8, "kind": "assumed", "note": "a test"}})
    assert held.cost(product(64, 4096, 4096)).memory_read_B == many.memory_read_B / 8
    assert held.cost(product(64, 4096, 4096)).occupancy_s < many.occupancy_s


def test_in_the_bank_the_time_is_that_of_the_row_operations() -> None:
    part = component(INSIDE, 64)
    lanes = 64 * 64 * 8192  # units, banks, bit lines
    for rounds in (2, 4):
        vectors = rounds * lanes // (1024 * 1024)
        cost = part.cost(product(vectors, 1024, 1024))
        row_ops_s = rounds * 663 * 48e-9 / (1 - 260 / 3900)
        moved_s = 1024 * 1024 * 7 / 8 / 256e9
        assert vectors % 64 == 0
        assert cost.occupancy_s == pytest.approx(row_ops_s + moved_s + 100e-9)
        # What is made, a byte a value, is written into rows of 1 KiB again.
        written_J = vectors * 1024 * (12.56e-12 + 414e-12 / 1024)
        assert cost.energy_J["rows"] == pytest.approx(vectors * 128 * 663 * 414e-12 + written_J)
    narrow = part.cost(product(64, 1024, 1024, precision="int4"))
    written_J = 64 * 512 * (12.56e-12 + 414e-12 / 1024)
    assert narrow.energy_J["rows"] == pytest.approx(64 * 128 * 155 * 414e-12 + written_J)


def test_units_that_keep_tokens_idle_when_there_are_fewer() -> None:
    part = component(INSIDE, 64)
    one, all_busy = part.cost(product(1, 8192, 4096)), part.cost(product(64, 8192, 4096))
    # One vector stays on one of eight links, so that 4096 * 8192 bytes need not go round; 63 of 64 units wait.
    moved_s = 4096 * 8192 * 7 / 8 / 256e9
    assert one.occupancy_s == pytest.approx(all_busy.occupancy_s - moved_s)
    assert all_busy.occupancy_s < part.cost(product(65, 8192, 4096)).occupancy_s
    assert all_busy.utilization * all_busy.occupancy_s == pytest.approx(64 * one.utilization * one.occupancy_s)


def test_what_crosses_the_links_depends_on_how_work_is_shared() -> None:
    weights, tokens = component(NEAR, 32), component(INSIDE, 16)  # two links each
    given, made, held = 100 * 512, 100 * 256, 512 * 256
    energy = weights.parameters.link_energy.value
    assert weights.cost(product(100, 256, 512)).energy_J["link"] == pytest.approx((2 * given + made) * energy)
    assert tokens.cost(product(100, 256, 512)).energy_J["link"] == pytest.approx(held * energy)
    assert component(INSIDE, 8).cost(product(100, 256, 512)).energy_J["link"] == 0.0


def test_grouped_queries_read_keys_once_for_each_group() -> None:
    def scores(heads: int, groups: int) -> Operator:
        query = Operand("q", (heads, 1, 128), "int8", Role.ACTIVATION)
        keys = Operand("k", (groups, 128, 4096), "int8", Role.KV_CACHE)
        result = Operand("s", (heads, 1, 4096), "int8", Role.ACTIVATION)
        return Operator(
            "scores", Kind.MATMUL, "attention", Phase.FORWARD, (query, keys), (result,), batch=heads, m=1, n=4096, k=128
        )

    part = component(NEAR, 16)
    assert part.cost(scores(32, 32)).memory_read_B == 32 * 128 * 4096
    assert part.cost(scores(32, 8)).memory_read_B == 4 * 8 * 128 * 4096  # each unit holds one vector
    assert part.cost(scores(32, 32)).energy_J["mac"] == pytest.approx(part.cost(scores(32, 8)).energy_J["mac"])


def test_light_operators_are_bound_by_logic_or_by_rows() -> None:
    part = component(NEAR, 16)
    light = part.cost(elementwise(Kind.ELEMENTWISE, 10**8, operations=0.01))
    assert light.occupancy_s == pytest.approx(2e8 / (256 * part.bandwidth_B_per_s))
    heavy = part.cost(elementwise(Kind.SOFTMAX, 10**6, operations=50))
    assert heavy.occupancy_s == pytest.approx(50e6 / (16 * 4e9))


def test_refresh_doubles_in_the_heat() -> None:
    part = component(NEAR, 4)
    assert part.leakage_W(360.0) == 2 * part.leakage_W(350.0) == pytest.approx(8 * 24e-3)


def test_formats_without_a_rate_are_refused_with_what_there_is() -> None:
    part = component(INSIDE)
    assert not part.supports(product(4, 8, 8, precision="fp32"))
    with pytest.raises(TierformError, match=r"int4, int8"):
        part.cost(product(4, 8, 8, precision="fp32"))


def test_everything_wrong_with_a_file_is_told_at_once() -> None:
    timing = {"banks_per_channel": 0, "refresh": {"value": "3900 ns", "kind": "assumed", "note": "all of the interval"}}
    none = {"value": 0.5, "kind": "assumed", "note": "a test"}
    with pytest.raises(TierformError) as caught:
        component(NEAR, banks=0, timing=timing, near_bank={"reuse": none}, units_per_link=0)
    text = str(caught.value)
    for what in (
        "haima-dram.yaml: banks: must be at least 1",
        "units_per_link",
        "banks_per_channel",
        "refresh is longer",
        "at least one vector",
    ):
        assert what in text
    with pytest.raises(TierformError, match="either near the bank or in it"):
        component(NEAR, near_bank=None)


def test_a_model_that_does_not_fit_in_the_banks_is_an_error_for_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["simulate", "llama-2-13b", "--chip", "haima", "--sequence", "16"])
    assert left.value.code == 2
    shown = capsys.readouterr().err
    assert "does not fit" in shown and "missing" in shown and "Traceback" not in shown


CHIPS = (
    "haima",
    "transpim",
    "tpu-3d",
    "isaac",
    "pipelayer",
    "retransformer",
    "x-former",
    "hetrax",
    "attacc-like",
    "hpt",
)


@pytest.mark.parametrize("name", CHIPS)
def test_published_accelerators_say_what_of_them_is_assumed(name: str) -> None:
    chip = load_chip(name)
    assert chip.assumed and all(line.source or line.note for line in chip.assumptions())


def test_gradients_of_weights_in_dram_may_be_made_in_sram() -> None:
    from tierform.simulation.simulate import simulate
    from tierform.workload import FineTuning

    result = simulate("bert-base", FineTuning(batch=2, sequence=64), "haima", thermal="none")
    where = {row.name: row.component for row in result.operators}
    assert where["ffn.up"] == "dram" and where["ffn.up.grad_weight"] == "sram"
    assert result.mapping is not None and result.mapping.placements == ()


def test_the_ledger_passes_and_can_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tierform.validation import pim

    assert pim.ledger().passed and len(pim.ledger().points) == 4
    monkeypatch.setattr(TimingFile, "row_s", 157e-9)  # 1 KiB at 6.5 GB/s
    monkeypatch.setattr(pim, "_ROWS", pim._ROWS - 1)  # another product, whose cost is not yet remembered
    assert pim._streamed(NEAR, "hbm2").passed is False
    with pytest.raises(TierformError, match="no points"):
        pim.ledger(tmp_path)
