"""Is what a chip does to a model's answers a figure of a search, measured as `tierform accuracy` measures it?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import tierform.numerics.accuracy as measuring
from tierform.chip import load_chip
from tierform.compression.checkpoints.questions import model_and_task
from tierform.errors import TierformError
from tierform.exploration import explore, load_space
from tierform.exploration.accuracy_space import AccuracyEvaluator
from tierform.exploration.sensitivity import sensitivity
from tierform.numerics import accuracy_table

SPACE = """schema: tierform.space/1
job:
  model: bert-base
  task: {kind: inference, batch: 8, sequence: 512, precision: {activations: int8, kv_cache: int8}}
  chip: atleus
accuracy: {data: digits, instances: 1, limit: 60, steps: 60}
parameters:
  weights: {path: task.precision.weights, values: [int2, int8]}
  width: {path: chip.network.width, values: [64 bit, 128 bit]}
objectives: [nats_lost, latency_s]
limits: {points_lost: 50}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return path

    return written


def test_are_answers_those_of_the_accuracy_command_and_measured_once(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = accuracy_table
    monkeypatch.setattr(measuring, "accuracy_table", lambda *a, **b: asked.append(b["bits"]) or real(*a, **b))
    space = load_space(write(SPACE))
    points = [{"weights": bits, "width": width} for bits in ("int2", "int8") for width in ("64 bit", "128 bit")]
    found = [outcome.figures for outcome in AccuracyEvaluator(space)(points)]
    assert [(bits.ffn, bits.activations) for bits in asked] == [(2, 8), (8, 8)]
    assert found[0]["nats_lost"] == found[1]["nats_lost"] > found[2]["nats_lost"] == found[3]["nats_lost"]
    assert found[0]["latency_s"] != found[1]["latency_s"]
    model, task = model_and_task("small", "digits", steps=60)
    chip = load_chip("atleus").vary({"network.width": "128 bit"})
    lines = real(model, task, chip, bits=8, instances=1, adapting=None, limit=60)
    assert found[3]["accuracy"] == lines.line("noisy").accuracy
    assert found[3]["nats_lost"] == pytest.approx(lines.line("noisy").loss - lines.line("float").loss, rel=1e-9)
    assert found[3]["points_lost"] == lines.line("noisy").points_lost


def test_is_a_point_beyond_its_own_limits_not_asked(write: Callable[[str], Path]) -> None:
    evaluator = AccuracyEvaluator(
        load_space(write(SPACE.replace("points_lost: 50", "latency_s: 1 us, points_lost: 1")))
    )
    (outcome,) = evaluator([{"weights": "int8", "width": "64 bit"}])
    assert outcome.violation > 0 and "accuracy" not in outcome.figures
    assert not evaluator._models


def test_does_a_limit_on_lost_points_hold(write: Callable[[str], Path], tmp_path: Path) -> None:
    text = SPACE.replace("points_lost: 50", "nats_lost: 0.05").replace(
        "[nats_lost, latency_s]", "[nats_lost, energy_J]"
    )
    study = explore(write(text), study=tmp_path / "study.db")
    good = [row.chosen["weights"] for row in study.base.rows() if row.outcome.violation <= 0]
    assert good == ["int8", "int8"]
    winner, found = sensitivity(study, rivals=1)
    assert winner.number == study.best("energy_J").number and found
    with pytest.raises(TierformError, match="time, energy or area"):
        sensitivity(study, "nats_lost")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("steps: 60", "bits: 9"), "weights and activations take 2 to 8 bits"),
        (("steps: 60", "noise: programing-2pct"), "programming-2pct"),
        (("steps: 60", "temperature: warm"), "accuracy.temperature"),
        (("steps: 60", "encoding: sideways"), "sideways"),
        (("steps: 60", "stepps: 60"), "steps"),
        (("data: digits", "part: test"), "accuracy.data"),
        (("chip: atleus", "chip: h100"), "accuracy.chip"),
        (("{data: digits, instances: 1, limit: 60, steps: 60}", "3"), "an accuracy's keys"),
        (("steps: 60}", "steps: 60}\nservice: {rate: 3}"), "a service or a job"),
        (("accuracy: {data: digits, instances: 1, limit: 60, steps: 60}", ""), "not a figure of a result"),
    ],
)
def test_are_mistakes_told_before_anything_is_trained(
    write: Callable[[str], Path], change: tuple[str, str], told: str
) -> None:
    with pytest.raises(TierformError) as caught:
        load_space(write(SPACE.replace(*change)))
    assert told in str(caught.value)
    assert all(problem.line for problem in caught.value.problems)


def test_do_formats_without_integers_say_what_to_give(write: Callable[[str], Path]) -> None:
    space = load_space(write(SPACE.replace("activations: int8, ", "")))
    (outcome,) = AccuracyEvaluator(space)([{"weights": "int8", "width": "64 bit"}])
    assert outcome.violation > 1 and "activations bf16" in outcome.reason and "accuracy.bits" in outcome.reason


def test_is_the_hottest_place_a_temperature(write: Callable[[str], Path]) -> None:
    text = SPACE.replace("steps: 60", "steps: 60, temperature: peak").replace(
        "chip: atleus", "chip: atleus\n  thermal: none"
    )
    (outcome,) = AccuracyEvaluator(load_space(write(text)))([{"weights": "int8", "width": "64 bit"}])
    assert "the job has no heat" in outcome.reason
