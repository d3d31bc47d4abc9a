"""Is it told which assumed constant would change a study's winner, and does the winner really change there?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tierform.cli.explore import command as explore_command
from tierform.errors import TierformError
from tierform.exploration.evaluator import JobEvaluator
from tierform.exploration.results_base import Row
from tierform.exploration.sensitivity import Sensitivity, Turn, sensitivity
from tierform.exploration.study import Study, explore
from tierform.simulation.simulate import run_job

SPACE = """\
schema: tierform.space/1
job: {model: bert-base, task: {kind: inference, batch: 2, sequence: 128}, chip: hetrax, thermal: none}
parameters:
  reram: {path: chip.package.dies.reram.holds.reram, values: [24, 36, 48]}
  clock: {path: chip.network.clock, values: [1 GHz]}
objectives: [energy_J, latency_s]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    (folder / "space.yaml").write_text(SPACE)
    return explore(folder / "space.yaml", study=folder / "space.db")


@pytest.fixture(scope="module")
def found(study: Study) -> tuple[Row, dict[str, Sensitivity]]:
    winner, told = sensitivity(study, "energy_J", within=2.0)
    return winner, {one.path: one for one in told}


# Assumed in the library's file of the tile.
LEAKAGE, LEAKAGE_W = "components.reram.leakage", 0.010


def _energy(study: Study, number: int, factor: float) -> float:
    """By a job of its own, without the code that is tested."""
    row = next(row for row in study.base.rows() if row.number == number)
    job = JobEvaluator(study.space).job(row.chosen).loaded()
    varied = job.chip.vary({LEAKAGE: f"{LEAKAGE_W * factor!r} W"})  # type: ignore[union-attr]
    return run_job(replace(job, chip=varied)).energy_J


def test_wins_another_point_where_it_is_said_to(study: Study, found: tuple[Row, dict[str, Sensitivity]]) -> None:
    """More tiles of ReRAM are faster and leak more: their leakage decides which number takes the least energy."""
    winner, told = found
    assert winner.number == study.best("energy_J").number
    leaking = told[LEAKAGE]
    assert leaking.constant.value == pytest.approx(LEAKAGE_W)
    assert leaking.changes and leaking.constant.kind == "assumed"
    turn = leaking.above or leaking.below
    assert isinstance(turn, Turn) and turn.number != winner.number
    inside, outside = turn.factor ** (1 - 0.03), turn.factor ** (1 + 0.01)
    others = [row.number for row in study.base.rows() if row.number != winner.number]
    own = {factor: _energy(study, winner.number, factor) for factor in (inside, outside)}
    assert _energy(study, turn.number, outside) < own[outside]
    assert all(_energy(study, number, inside) >= own[inside] for number in others)
    # The ends of the range are those of whole runs.
    plain = _energy(study, winner.number, 1.0)
    assert leaking.most == pytest.approx(_energy(study, winner.number, 2.0) / plain, rel=1e-9)
    assert leaking.least == pytest.approx(_energy(study, winner.number, 0.5) / plain, rel=1e-9)


def test_is_a_constant_that_is_chosen_no_assumption(found: tuple[Row, dict[str, Sensitivity]]) -> None:
    assert "network.clock" not in found[1] and "network.vertical.width" in found[1]


def test_changes_a_narrower_range_no_more_than_a_wider_one(
    study: Study, found: tuple[Row, dict[str, Sensitivity]]
) -> None:
    _, narrow = sensitivity(study, "energy_J", within=1.05)
    for one in narrow:
        wide = found[1][one.path]
        assert not one.changes or wide.changes
        assert one.swing <= wide.swing + 1e-9


@pytest.mark.parametrize("within", [1.0, 0.5, 1e6, float("nan")])
def test_is_a_range_refused_that_is_none(study: Study, within: float) -> None:
    with pytest.raises(TierformError, match="a factor above 1"):
        sensitivity(study, within=within)


def test_tells_the_command_it_for_every_objective(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    done = CliRunner().invoke(
        explore_command, ["show", str(study.base.path), "--sensitivity", "2", "--json", str(path)]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(path.read_text())["sensitivity"]
    assert [one["figure"] for one in told] == ["energy_J", "latency_s"]
    leakage = next(one for one in told[0]["constants"] if one["path"] == LEAKAGE)
    assert leakage["above"] or leakage["below"]
