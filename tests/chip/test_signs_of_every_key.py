"""Does every number of a component, doubled and halved as a user changes it, move what it physically decides, that way?

The table says for each key what more of it does: ``area+`` the area grows, ``time-`` products and kernels are faster.
``a/b``: one of them at least.  Half of it must not do the same.  A key may be refused one way; where twice and half
stay within another bound, sixteen times as much or as little is tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import pytest
from attention_operators import backward_core, record
from test_every_key_acts import BASES, MACRO, UNITS, leaves, operators

from tierform.chip.changes import merged, nested
from tierform.chip.component import (
    BufferHolder,
    KernelIssuer,
    MemoryHolder,
    OperatorFuser,
    PoweredBoard,
    Wearing,
    WeightHolder,
)
from tierform.chip.crossbar import CrossbarTiles
from tierform.chip.crossbar.tile import power_by_part
from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.gpu.collectives import KINDS, CollectiveModel
from tierform.chip.sample_operators import attention_core
from tierform.errors import TierformError
from tierform.provenance import Constant
from tierform.workload.operator import Kind, Operator, Phase

# type of component | key | what more of it does.  The first row that matches counts.
SIGNS = """
crossbar | crossbars                 | area+ leakage+ room+ power+
crossbar | crossbars_per_macro       | area-
crossbar | rows                      | area+ leakage+ held- write_energy+ power+
crossbar | columns                   | area+ leakage+ held- write_energy+ power+
crossbar | cell_bits                 | held- energy-
crossbar | dac_bits                  | area+ leakage+
crossbar | guard_columns             | held+ energy+
crossbar | active_rows               | time-
crossbar | max_*_bits                | runs+
crossbar | adc_bits                  | energy+
crossbar | adc_saved_bits            | needed-
crossbar | columns_per_adc           | time+/area-
crossbar | adc_rate                  | area+ energy+ time-
crossbar | cycle                     | time+/power-
crossbar | pipeline_cycles           | time+
crossbar | neuron.bits_per_phase     | time-
crossbar | neuron.*                  | time+
crossbar | parts.input-pulse.count   |
crossbar | parts.*.count             | area+/power+
crossbar | parts.*.energy            | energy+/power+
crossbar | parts.router.area         | leakage+
crossbar | parts.*.area              | area+ leakage+
crossbar | parts.*.rate              | power+
crossbar | parts.*.capacity          | area+ energy+ leakage+
crossbar | activation_rate           | area+ time-
crossbar | leakage                   | leakage+
crossbar | idle_power                | leakage+
crossbar | write_pulse               | write_time+
crossbar | write_pulses              | write_time+
crossbar | write_energy              | write_energy+
crossbar | verify_energy             | write_energy+
crossbar | parallel_writes           | write_time-
crossbar | endurance                 | life+
crossbar | retention                 | refresh-
systolic | rows                      | area+ leakage+ time-
systolic | columns                   | area+ leakage+ time-
systolic | accumulator_bits          | energy+ traffic+
systolic | weight_sparsity.kept      | time+ energy+
systolic | weight_sparsity.block     | time- energy-
systolic | clock                     | time- energy+ leakage+
systolic | mac_energy.*              | energy+
systolic | sram_energy               | energy+
systolic | sram_capacity             | area+ leakage+ energy+ traffic-
systolic | sram_banks                | area+
systolic | sram_width                | area+ energy-
systolic | array_area                | area+
systolic | leakage                   | leakage+
systolic | idle_power                | leakage+
vector   | lanes                     | area+ leakage+ time-
vector   | clock                     | time- energy+ leakage+
vector   | *_energy                  | energy+
vector   | buffer_capacity           | area+ leakage+ energy+ traffic-
vector   | area                      | area+
vector   | leakage                   | leakage+
pim      | banks                     | time-
pim      | capacity                  | memory+
pim      | timing.row_bytes          | time-
pim      | timing.column_bytes       | time-
pim      | timing.refresh_interval   | time-
pim      | timing.banks_per_channel  | time+/time-
pim      | timing.*                  | time+
pim      | near_bank.mac_rate.*      | time-
pim      | near_bank.mac_energy.*    | energy+
pim      | near_bank.reuse           | time- energy-
pim      | in_bank.subarrays         | time-
pim      | in_bank.row_operation     | time+
pim      | in_bank.row_operations.*  | time+ energy+
pim      | in_bank.adder_rate        | time-
pim      | units_per_link            | energy-
pim      | *_rate                    | time-
pim      | link_bandwidth            | time-
pim      | link_latency              | time+
pim      | *energy                   | energy+
pim      | background                | leakage+
pim      | area                      | area+
gpu      | multiprocessors           | area+ time- leakage+ floor+ headroom+
gpu      | clock                     | time- energy+ leakage+ floor+ headroom+
gpu      | peak_rate.*               | time-
gpu      | structured_sparsity       | time-
gpu      | vector_rate               | time-
gpu      | memory_bandwidth          | time- leakage+ floor+ headroom+
gpu      | memory_capacity           | memory+
gpu      | l2_capacity               | area+ time-
gpu      | l2_partitions             | time+
gpu      | compute_efficiency        | time-
gpu      | memory_efficiency         | time-
gpu      | launch                    | time+
gpu      | issue                     | time+
gpu      | view                      | time+
gpu      | in_step_time              | time+
gpu      | light_time.*              | time+
gpu      | operation_energy.*        | energy+
gpu      | memory_energy             | energy+
gpu      | idle_power                | leakage+ headroom-
gpu      | active_power              | floor+ headroom-
gpu      | board_power               | headroom+
gpu      | die_area                  | area+
gpu      | links.bandwidth           | collective-
gpu      | links.direct.*share       | direct-
gpu      | links.direct.*            | direct+
gpu      | links.*share              | collective-
gpu      | links.*                   | collective+
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in SIGNS.strip().splitlines()]
COLLECTIVE_SIZES = (1e2, 1e3, 1e6, 1e9)


def totals(part: Any) -> dict[str, float]:
    """Figures of a component over sample operators, by what the table calls them."""
    found = {"area": part.area_m2, "leakage": float(part.leakage_W(300.0))}
    costs, traffic, held = [], [], []
    runs = [operator for operator in operators() if part.supports(operator)]
    for operator in runs:
        costs.append(part.cost(operator))
        if isinstance(part, BufferHolder):
            r = part.refetch(operator)
            traffic.append(r.first + r.second + r.result_read + r.result_write)
        if isinstance(part, WeightHolder) and operator.weight:
            held.append(float(part.crossbars_for(operator)))
    if isinstance(part, KernelIssuer) and part.issues_kernels:
        costs.append(part.cost(Operator("view", Kind.ELEMENTWISE, "other", Phase.FORWARD, (), (), count=1000)))
    if isinstance(part, OperatorFuser):
        for queries, kv_heads, sequences in ((1, 4, 2), (512, 4, 2), (4096, 16, 1)):
            a = record(queries=queries, keys=max(queries, 1024), kv_heads=kv_heads, sequences=sequences)
            for block in (attention_core(a, "bf16", cached=True), backward_core(a)):
                costs += [cost for kernel in part.fuse(block) for cost in kernel.costs]
    found["time"] = math.fsum(cost.latency_s for cost in costs)
    found["energy"] = math.fsum(cost.total_energy_J for cost in costs)
    found |= {"held": math.fsum(held), "traffic": math.fsum(traffic), "runs": float(len(runs))}
    if isinstance(part, WeightHolder):
        write = part.programming_cost(5000)
        found |= {"write_time": write.latency_s, "write_energy": write.total_energy_J, "room": float(part.crossbars)}
    if isinstance(part, Wearing):
        found |= {"life": part.endurance_writes, "refresh": float(part.refreshes(1e7))}
    if isinstance(part, MemoryHolder):
        found["memory"] = float(part.memory_capacity_B)
    if isinstance(part, CrossbarTiles):
        from tierform.chip.crossbar.readout import needed_adc_bits

        found["power"] = math.fsum(power_by_part(part.parameters).values())
        found["needed"] = float(needed_adc_bits(part.parameters))
    if isinstance(part, PoweredBoard):
        found |= {"floor": part.active_W, "headroom": part.headroom_W}
    if isinstance(part, Gpu) and part.parameters.links is not None:
        links = CollectiveModel.of(part.parameters.links)
        found["collective"] = math.fsum(
            float(links.seconds(k, n, s)) for k in KINDS for n in (2, 8) for s in COLLECTIVE_SIZES
        )
        found["direct"] = math.fsum(
            part.collective_s("all_reduce", n, s, direct=True) or 0.0 for n in (2, 8) for s in COLLECTIVE_SIZES
        )
    return found


def given(value: Any, factor: float) -> object:
    """So many times a number, as a file gives it; whole numbers stay whole."""
    if isinstance(value, Constant):
        more = (value.value or 1e-6) * factor
        return {"value": more if value.unit == "1" else f"{more!r} {value.unit}", "kind": "assumed", "note": "test"}
    if isinstance(value, int):
        return max(1, int(value * factor)) if value else int(factor)
    return value * factor if value else factor


def base_changes(base: str) -> dict[str, Any]:
    """What makes a component use every key: parts stay the library's, so that laws scale them."""
    return {**BASES[base], "parts": {"macro": MACRO}} if base.startswith("isaac") else dict(BASES[base])


def made(base: str, at: tuple[str, ...] = (), value: object = None) -> Any:
    changes = nested(base_changes(base))
    if at:
        changes = merged(changes, nested({".".join(at): value}), keep_null=True)
    return load_component("part", UNITS.get(base, 16), base, changes)


def keys() -> Iterator[tuple[str, tuple[str, ...]]]:
    for base in BASES:
        if base == "h200-gpu":  # the keys of the other GPU
            continue
        for at, value in leaves(made(base).parameters):
            kernel = at[0] in ("products", "wide_products", "attention", "held_out_error", "fitted_at")
            if not kernel and not isinstance(value, bool):
                yield base, at
    # Keys with defaults, which no library file gives.
    yield from (("systolic-128x32-10nm", (key,)) for key in ("sram_banks", "sram_width"))


KEYS = list(dict.fromkeys(keys()))


def row_of(type_name: str, key: str) -> str:
    for component, pattern, signs in ROWS:
        if component == type_name and fnmatch(key, pattern):
            return signs
    raise AssertionError(f"{type_name}: what more of {key} does is in no row of the table")


@pytest.fixture(scope="module")
def before() -> dict[str, dict[str, float]]:
    return {base: totals(made(base)) for base in BASES if base != "h200-gpu"}


@pytest.mark.parametrize(("base", "at"), KEYS, ids=lambda item: ".".join(item) if isinstance(item, tuple) else item)
def test_does_more_and_less_of_every_number_act_the_right_way(
    base: str, at: tuple[str, ...], before: dict[str, dict[str, float]]
) -> None:
    part = made(base)
    value: Any = part.parameters
    for step in at:
        value = value[step] if isinstance(value, dict) else getattr(value, step)
    wanted = row_of(part.parameters.type, ".".join(at)).split()
    moved: set[str] = set()
    for factors in ((2.0, 0.5), (16.0, 1 / 16)):
        for factor in factors:
            if factor < 1 and (value.value if isinstance(value, Constant) else value) == 0:
                continue  # there is no less
            try:
                after = totals(made(base, at, given(value, factor)))
            except TierformError:
                moved |= {f"{figure} refused" for figure in before[base]}
                continue
            for figure, old in before[base].items():
                if abs(after[figure] - old) > 1e-12 * abs(old):
                    moved.add(f"{figure}{'+' if (after[figure] > old) == (factor > 1) else '-'}")
        if all(any(one in moved for one in signs.split("/")) for signs in wanted):
            break
    for signs in wanted:
        ways = signs.split("/")
        assert any(one in moved for one in ways), f"{at}: {signs} expected; moved: {sorted(moved)}"
        if len(ways) == 1:
            other = signs[:-1] + ("-" if signs.endswith("+") else "+")
            assert other not in moved, f"{at}: {other} as well as {signs}"
