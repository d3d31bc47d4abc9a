"""Do tiles take the crossbars, cycles and energy that counting by hand gives, and are wrong files refused?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform import library
from tierform.chip.component import Share
from tierform.chip.crossbar import CrossbarTiles
from tierform.chip.crossbar.calibration import MeasuredPoint, fit_neuron
from tierform.chip.crossbar.readout import cycle_s, needed_adc_bits, neuron_counts, read
from tierform.chip.crossbar.tile import area_by_part, mac_energy_at_full_load, peak, power_by_part
from tierform.chip.description import load_chip, load_component
from tierform.chip.sample_operators import elementwise, product
from tierform.errors import TierformError
from tierform.numerics.chip_view import crossbar_format
from tierform.simulation import simulate
from tierform.workload import FineTuning, LoRA, PrecisionPlan
from tierform.workload.operator import Kind


def tiles(name: str = "isaac-tile-32nm", units: int = 1, **changes: Any) -> CrossbarTiles:
    component = load_component(name, units, name, changes)
    assert isinstance(component, CrossbarTiles)
    return component


def test_layers_of_width_1024_take_73728_crossbars_at_8_bits() -> None:
    for name in ("isaac-tile-32nm", "atleus-tile-32nm"):
        tile = tiles(name)
        layer = 4 * tile.crossbars_for(product(1, 1024, 1024)) + 2 * tile.crossbars_for(product(1, 4096, 1024))
        assert 24 * layer == 73_728


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(1, 700),
    n=st.integers(1, 700),
    weight_bits=st.sampled_from([2, 4, 6, 8, 16]),
    arrangement=st.sampled_from(["columns", "crossbars"]),
    encoding=st.sampled_from(["offset", "differential"]),
)
def test_crossbars_and_conversions_are_counted_cell_by_cell(
    k: int, n: int, weight_bits: int, arrangement: str, encoding: str
) -> None:
    tile = tiles(slices=arrangement, encoding=encoding)
    cells = tile.slices(weight_bits)
    assert cells == (-(-weight_bits // 2) if encoding == "offset" else 2 * -(-(weight_bits - 1) // 2))
    operator = product(3, n, k, weight_precision=f"int{weight_bits}")
    used = set()
    for i in range(0, k, 50):
        for j in {0, n // 2, n - 1}:
            for cell in range(cells):
                if arrangement == "columns":  # whole weights beside each other
                    used.add((i // 128, j // (128 // cells)))
                else:
                    used.add((i // 128, j // 128, cell))
    arrays = tile.crossbars_for(operator)
    assert len(used) <= arrays
    down = -(-k // 128)
    assert arrays == (down * -(-n // (128 // cells)) if arrangement == "columns" else cells * down * -(-n // 128))
    energy = tile.cost(operator).energy_J
    conversions = 3 * 8 * down * n * cells
    assert energy["adc"] == pytest.approx(conversions * 1.5625e-12)
    assert energy["crossbar"] == pytest.approx(arrays * 3 * 8 * 30e-12)


def test_cost_and_values_count_the_same_crossbars() -> None:
    """1024 x 1024 weights of 6 bits: 3 cells of 2 bits, 42 in 128 columns, 8 * ceil(1024 / 42) = 200 crossbars.

    With a slice in each of three crossbars (atleus), 3 * 8 * 8 = 192.
    """
    for name, six in (("isaac", 200), ("atleus", 192)):
        chip = load_chip(name)
        reram = next(part for part in chip.components.values() if isinstance(part, CrossbarTiles))
        for width, expected in ((8, 256), (6, six), (4, 128), (3, 128), (2, 64)):
            assert reram.crossbars_for(product(1, 1024, 1024, weight_precision=f"int{width}")) == expected
            assert crossbar_format(chip, weight_bits=width).crossbars(1024, 1024) == expected


def test_guard_columns_stand_beside_every_weight() -> None:
    """8 bits in cells of 2, one guard column: 5 columns, 25 weights in 128; apart 2 columns a slice, 64 in 128."""
    operator = product(1, 100, 128)
    assert tiles(guard_columns=1).crossbars_for(operator) == 4
    assert tiles(guard_columns=1, slices="crossbars").crossbars_for(operator) == 4 * 2
    assert tiles(guard_columns=1).cost(operator).utilization == pytest.approx(100 * 5 / (4 * 128))


def test_a_vector_takes_one_cycle_for_each_input_bit_and_replicas_take_turns() -> None:
    tile = tiles()
    one = tile.cost(product(64, 256, 256))
    assert one.occupancy_s == pytest.approx(64 * 8 * 100e-9)
    assert one.latency_s - one.occupancy_s == pytest.approx(6 * 100e-9)
    assert tile.cost(product(64, 256, 256), Share(0, 4)).occupancy_s == pytest.approx(16 * 8 * 100e-9)
    assert tile.cost(product(64, 256, 256, precision="int4")).occupancy_s == pytest.approx(64 * 4 * 100e-9)
    assert tiles(dac_bits=2).cost(product(64, 256, 256)).occupancy_s == pytest.approx(64 * 4 * 100e-9)


def test_rows_that_are_not_active_together_are_read_in_turns() -> None:
    assert tiles(active_rows=32).cost(product(8, 128, 128)).occupancy_s == pytest.approx(8 * 8 * 4 * 100e-9)
    assert tiles(active_rows=32).cost(product(8, 128, 40)).occupancy_s == pytest.approx(8 * 8 * 2 * 100e-9)


def test_an_adc_that_serves_more_columns_stretches_the_cycle() -> None:
    assert cycle_s(tiles().parameters) == pytest.approx(100e-9)
    slow = tiles(columns_per_adc=256)
    assert cycle_s(slow.parameters) == pytest.approx(200e-9)
    assert any("stretches the cycle" in remark for remark in slow.remarks)


def test_the_transposed_read_costs_its_slices_unless_they_are_apart_or_copied() -> None:
    forward, backward = product(32, 1024, 1024), product(32, 1024, 1024, transposed=True)
    beside, apart = tiles(slices="columns"), tiles(slices="crossbars")
    assert beside.crossbars_for(forward) == beside.crossbars_for(backward)
    assert beside.cost(backward).occupancy_s == pytest.approx(4 * beside.cost(forward).occupancy_s)
    assert apart.cost(backward).occupancy_s == pytest.approx(apart.cost(forward).occupancy_s)
    copied = beside.cost(backward, Share(0, 1, second_copy=True))
    assert copied.occupancy_s == pytest.approx(beside.cost(forward).occupancy_s)
    assert copied.total_energy_J < beside.cost(backward).total_energy_J


def test_the_scale_of_each_crossbar_is_charged_once_for_each_result() -> None:
    plain, scaled = (
        tiles(name).cost(product(16, 512, 512)).energy_J for name in ("isaac-tile-32nm", "atleus-tile-32nm")
    )
    assert "scale" not in plain
    assert scaled["scale"] == pytest.approx(16 * 512 * 4 * 0.36e-12)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 64), n=st.integers(1, 512), k=st.integers(1, 512))
def test_fewer_weight_bits_never_cost_more(m: int, n: int, k: int) -> None:
    tile = tiles()
    energies = [
        tile.cost(product(m, n, k, weight_precision=f"int{width}")).total_energy_J for width in (16, 8, 6, 4, 2)
    ]
    assert all(more > less for more, less in pairwise(energies))


def test_energy_of_a_model_falls_with_its_weight_bits_and_lora_writes_nothing() -> None:
    dynamic = []
    for width in (8, 6, 4, 2):
        plan = PrecisionPlan(
            weights=f"int{width}",
            activations="int8",
            kv_cache="int8",
            gradients="bf16",
            adapters="bf16",
            master_weights=None,
        )
        task = FineTuning(method=LoRA(rank=32), batch=1, sequence=512, precision=plan)
        result = simulate("bert-large", task, "atleus")
        assert result.wear.cell_writes == 0
        assert result.crossbars["first_copies"] >= 24 * 12 * 8 * 8 * width // 2
        dynamic.append(result.energy_J_by_part["reram: adc"])
    assert all(more > less for more, less in pairwise(dynamic))
    assert dynamic[0] / dynamic[3] == pytest.approx(4, rel=0.1)


def test_isaac_comes_out_part_by_part() -> None:
    p = tiles().parameters
    assert sum(power_by_part(p).values()) == pytest.approx(0.330, rel=0.005)
    assert sum(area_by_part(p).values()) == pytest.approx(0.372e-6, rel=0.005)
    assert mac_energy_at_full_load(p, 16, 16) == pytest.approx(2.69e-12, rel=0.03)
    assert mac_energy_at_full_load(p, 8, 8) == pytest.approx(0.67e-12, rel=0.03)
    assert tiles().area_m2 == pytest.approx(0.372e-6 - 0.0375e-6, rel=0.005)


def test_a_cost_adds_up_to_the_peak_energy_of_a_filled_tile() -> None:
    p = tiles().parameters
    cost = tiles().cost(product(100, 32 * 12, 128 * 8))
    per_operation = cost.total_energy_J / cost.operations
    assert per_operation == pytest.approx(peak(p, 8, 8, bytes_moved=True).energy_per_operation_J, rel=0.05)


@pytest.mark.parametrize(
    ("bits", "counts"),
    [
        ((1, 3), (1, 1, 1, 3)),
        ((2, 4), (1, 1, 1, 4)),
        ((4, 6), (3, 1, 7, 6)),
        ((5, 7), (4, 2, 6, 12)),
        ((7, 9), (6, 2, 14, 15)),
        ((8, 10), (7, 2, 22, 16)),
    ],
)
def test_a_neuron_integrates_and_decides_as_described(bits: tuple[int, int], counts: tuple[int, ...]) -> None:
    assert neuron_counts(*bits, 3, False) == counts


def test_two_phases_are_faster_from_five_input_bits_on() -> None:
    p = tiles("neurram-130nm", adc_bits=8).parameters
    assert p.neuron is not None
    single = p.model_copy(update={"neuron": p.neuron.model_copy(update={"one_phase": True})})
    assert read(p, 4, 256) == read(single, 4, 256)
    assert read(p, 6, 256).seconds < read(single, 6, 256).seconds


MEASURED = [
    MeasuredPoint(4, 2, 1.793083771, 40.33412834, 8.270951256, 3.955661604, 12.38674172),
    MeasuredPoint(6, 4, 0.7438677864, 15.95409517, 21.75617998, 11.50740478, 29.1084171),
    MeasuredPoint(9, 7, 0.343873405, 7.750037817, 43.69214654, 22.83498524, 61.83258722),
]


def test_the_fit_of_neurram_is_what_the_file_says() -> None:
    fit = fit_neuron(MEASURED, arrays=48, rows=256, weights_per_row=128, bits_per_phase=3)
    p = tiles("neurram-130nm").parameters
    assert p.neuron is not None
    found = (p.neuron.phase.value, p.neuron.pulse.value, p.neuron.step.value)
    assert found == pytest.approx((fit.phase_s, fit.pulse_s, fit.step_s), rel=1e-4)
    names = ("wordline", "input-pulse", "neuron-phase", "neuron-step", "neuron-bit")
    energies = [part.energy.value for name in names if (part := p.parts[name]).energy]
    fitted = [fit.wordline_J, fit.pulse_J, fit.neuron_phase_J, fit.neuron_step_J, fit.neuron_bit_J]
    assert energies == pytest.approx(fitted, rel=1e-4)
    with pytest.raises(TierformError):
        fit_neuron(MEASURED[:2], arrays=48, rows=256, weights_per_row=128, bits_per_phase=3)


def test_idle_power_is_drawn_at_any_temperature() -> None:
    idling = tiles(idle_power={"value": "2 mW", "kind": "assumed", "note": "clocks"})
    for kelvin in (300.0, 360.0):
        assert idling.leakage_W(kelvin) - tiles().leakage_W(kelvin) == pytest.approx(2e-3)


def test_sram_writes_its_second_operand_before_each_product() -> None:
    sram = tiles("xformer-attention-sram")
    dynamic = product(64, 128, 64, held=False)
    assert sram.supports(dynamic)
    assert not tiles().supports(dynamic)
    cost = sram.cost(dynamic)
    assert cost.energy_J["writing"] == pytest.approx(64 * 128 * 8 * 0.02e-12)
    assert cost.occupancy_s == pytest.approx(64 * 1e-9 + 64 * 8 * 10e-9)
    assert cost.cell_writes == 0
    worn = tiles("retransformer-tile").cost(dynamic)
    assert worn.cell_writes == 64 * 128 * 4
    assert worn.writes_per_cell == 1


def test_more_products_than_crossbars_come_in_waves() -> None:
    sram = tiles("xformer-attention-sram")
    assert sram.cost(product(64, 128, 64, held=False, batch=12)).occupancy_s == pytest.approx(
        2 * sram.cost(product(64, 128, 64, held=False, batch=6)).occupancy_s
    )


ROW_WRITE_S = 50.88e-9 * 4  # a pulse of 50.88 ns, four times


def rewritable(units: int = 1, **changes: Any) -> CrossbarTiles:
    counts = {"parallel_writes": {"value": "2", "kind": "assumed", "note": "test"}, "crossbars": 4}
    return tiles("isaac-tile-32nm", units, dynamic_operands=True, **{**counts, **changes})


REWRITABLE = rewritable().parameters


def test_waves_write_the_crossbars_that_they_take_and_no_others() -> None:
    """Six products of one crossbar each on one tile of four: two waves of reading, 6 / 2 = 3 rounds of writing.

    On 400 crossbars one wave remains and the three rounds stay; on six tiles each writes one crossbar in one round.
    """
    six = product(64, 32, 128, held=False, batch=6)
    reading_s = 64 * 8 * 100e-9
    for tile, rounds, waves in (
        (rewritable(), 3, 2),
        (rewritable(crossbars=400), 3, 1),
        (rewritable(units=6), 1, 1),
        (rewritable(crossbars=1), 6, 6),
    ):
        cost = tile.cost(six)
        assert cost.occupancy_s == pytest.approx(rounds * 128 * ROW_WRITE_S + waves * reading_s)
        assert cost.cell_writes == 6 * 128 * 32 * 4 and cost.writes_per_cell == waves
        assert cost.latency_s == pytest.approx(cost.occupancy_s + 6 * 100e-9)
        # Six arrays' cells, all of their columns, of the cells of all arrays in every wave.
        assert cost.utilization == pytest.approx(6 / (waves * tile.crossbars))
        assert cost.energy_J["writing"] == pytest.approx(cost.cell_writes * 44e-12)
        assert cost.energy_J["adc"] == pytest.approx(6 * 64 * 8 * 128 * 1.5625e-12)


@settings(max_examples=150, deadline=None)
@given(
    m=st.integers(1, 300),
    n=st.integers(1, 500),
    k=st.integers(1, 500),
    batch=st.integers(1, 40),
    crossbars=st.integers(1, 200),
    more=st.integers(1, 200),
    at_once=st.integers(1, 20),
)
def test_more_crossbars_tiles_and_writers_and_fewer_bits_are_never_slower(
    m: int, n: int, k: int, batch: int, crossbars: int, more: int, at_once: int
) -> None:
    p = REWRITABLE

    def seconds(held: int, width: int, units: int = 1, form: str = "int8") -> float:
        writers = replace(p.parallel_writes, value=float(width))
        counts = {"crossbars": held, "parallel_writes": writers}
        tile = CrossbarTiles.build("tile", units, p.model_copy(update=counts))
        return tile.cost(product(m, n, k, held=False, batch=batch, precision=form)).latency_s

    plain = seconds(crossbars, at_once)
    assert seconds(crossbars + more, at_once) <= plain
    assert seconds(crossbars, at_once + more) <= plain
    assert seconds(crossbars, at_once, units=2) <= plain
    assert seconds(crossbars, at_once, form="int4") <= plain


def test_a_second_copy_does_not_fill_the_crossbars_of_the_first() -> None:
    operator = product(8, 1000, 1000, transposed=True)
    plain, copied = (tiles().cost(operator, Share(0, 1, second_copy=copy)) for copy in (False, True))
    assert copied.utilization == plain.utilization <= 1


def test_weights_and_inputs_wider_than_the_design_are_refused() -> None:
    narrow = tiles("sinangil-sram-7nm")
    assert narrow.supports(product(8, 16, 64, precision="int4"))
    wide = product(8, 16, 64)
    assert not narrow.supports(wide)
    with pytest.raises(TierformError, match="at most 4 bits"):
        narrow.crossbars_for(wide)
    told = narrow.why_not(wide)
    assert (
        told.startswith("sinangil-sram-7nm: ")
        and "here are weights of 8 bits (8 columns each) and inputs of 8 bits" in told
    )
    assert narrow.why_not(product(8, 16, 64, precision="int4")) == ""
    # Nobody expects these on crossbars: no weight, an adapter, another kind.
    adapter = replace(wide, part="adapter")
    assert {narrow.why_not(o) for o in (product(8, 16, 64, held=False), adapter, elementwise(Kind.SOFTMAX, 8))} == {""}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"rows": 0}, "rows"),
        ({"columns": 0}, "columns"),
        ({"crossbars": 0}, "crossbars"),
        ({"cell_bits": 0}, "cell_bits"),
        ({"active_rows": 129}, "active_rows"),
        ({"adc_bits": 0}, "adc_bits"),
        ({"adc_kind": "integrating"}, "neuron"),
        ({"domain": "digital"}, "adc_kind"),
        ({"guard_columns": 128}, "columns"),
        ({"max_weight_bits": 0}, "max_weight_bits"),
        ({"parallel_writes": {"value": "0.5", "kind": "assumed", "note": "test"}}, "parallel_writes"),
    ],
)
def test_impossible_tiles_are_refused(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(TierformError) as caught:
        tiles(**changes)
    assert key in {str(problem.key).rpartition(".")[2] for problem in caught.value.problems}


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(TierformError) as caught:
        tiles(rows=0, cell_bits=0, adc_bits=0)
    assert len(caught.value.problems) == 3


def test_an_adc_with_more_bits_than_a_column_needs_is_remarked() -> None:
    assert needed_adc_bits(tiles().parameters) == 8
    assert tiles().remarks == ()
    assert any("never needs more than 8" in remark for remark in tiles(adc_bits=10).remarks)
    assert any("never needs more than 6" in remark for remark in tiles(active_rows=32, adc_bits=8).remarks)


def test_a_chip_tells_the_remarks_of_its_components(tmp_path: Path) -> None:
    text = library.find("chips", "atleus").read_text()
    path = tmp_path / "chip.yaml"
    path.write_text(text.replace("{file: atleus-tile-32nm}", "{file: atleus-tile-32nm, set: {adc_bits: 12}}"))
    assert any("never needs more than 8" in note for note in load_chip(path).notes)
    assert not any("never needs more" in note for note in load_chip("atleus").notes)
