"""Every timing constraint of every standard, on both sides of its bound, and in the commands of whole simulations."""

from __future__ import annotations

import pytest

from tierform.memory.constraints import COMMANDS, constraint_table
from tierform.memory.cycle import CycleMemory, DeviceTiming
from tierform.memory.standard import dram_names, load_dram
from tierform.memory.traffic import requests, spacing_violations


@pytest.mark.parametrize("name", dram_names())
def test_each_spacing_is_allowed_at_n_and_refused_before(name: str) -> None:
    checked, wrong = spacing_violations(load_dram(name, ranks=2), DeviceTiming)
    assert checked > 60
    assert wrong == 0


def test_a_changed_spacing_is_noticed() -> None:
    class Hasty(DeviceTiming):
        def ready_at(self, command: str, bank: int = 0) -> int:
            return super().ready_at(command, bank) - 1

    checked, wrong = spacing_violations(load_dram("ddr4-2400", ranks=2), Hasty)
    assert wrong == checked


def _violations(spec, log) -> list[str]:
    """A slow reading of the rules: every pair of commands in order, against the list of constraints."""
    table = constraint_table(spec).constraints
    rules: dict[tuple[str, str], list] = {}
    for item in table:
        rules.setdefault((item.earlier, item.later), []).append(item)
    found = []
    history: list[tuple[int, str, int]] = []
    for cycle, command, bank in zip(log.cycle.tolist(), log.command.tolist(), log.bank.tolist(), strict=True):
        later = COMMANDS[command]
        acts = [h for h in history if h[1] == "ACT" and h[2] // spec.banks == bank // spec.banks]
        for then, earlier, where in history[-120:]:
            same_rank = where // spec.banks == bank // spec.banks
            near = {
                "bank": where == bank,
                "group": where // spec.banks_per_group == bank // spec.banks_per_group,
                "rank": same_rank,
                "others": not same_rank,
                "channel": True,
            }
            found += [
                f"{earlier}@{then} bank {where} -> {later}@{cycle} bank {bank}: {rule}"
                for rule in rules.get((earlier, later), ())
                if rule.window == 1 and near[rule.scope] and cycle - then < rule.cycles
            ]
        found += [
            f"window {rule} at {cycle}"
            for rule in rules.get(("ACT", "ACT"), ())
            if later == "ACT" and 1 < rule.window <= len(acts) and cycle - acts[-rule.window][0] < rule.cycles
        ]
        history.append((cycle, later, bank))
    return found


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ddr4-2400", {"ranks": 2}),
        ("ddr5-4800", {"refresh": "same-bank"}),
        ("lpddr5-6400", {"row_policy": "closed"}),
        ("gddr6-16", {"power_down_after": 40, "self_refresh_after": 2000}),
        ("hbm3-6400", {}),
        ("hbm2-2000", {"queue_per": "rank", "command_queue": 16}),
    ],
)
@pytest.mark.parametrize("pattern", ["stream", "random"])
def test_no_command_of_a_simulation_breaks_a_constraint(name: str, settings: dict, pattern: str) -> None:
    spec = load_dram(name, **settings).with_channels(1)
    trace = requests(spec, pattern, 400, 0.6, seed=3)
    result = CycleMemory(spec).run(trace, log_commands=8000)
    assert result.reads + result.writes == 400
    assert result.log is not None
    assert _violations(spec, result.log) == []
