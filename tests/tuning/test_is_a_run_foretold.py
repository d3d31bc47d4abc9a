"""Is what a run will cost foretold before it runs: its phases, and the whole by the step of its switch?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tierform.chip.contract import check
from tierform.chip.description import load_chip
from tierform.chip.gpu.calibration import calibrate, write_files
from tierform.chip.gpu.device import Gpu
from tierform.chip.gpu.measure import Device, chosen_shapes
from tierform.chip.gpu.samples import Sample
from tierform.cli.main import main
from tierform.tuning.config import load_config
from tierform.tuning.predict import earliest, predict, switches
from tierform.tuning.rule import FixedStep, HpTRule, IntrinsicDimension, LossPlateau
from tierform.workload import Training, expand, load_model
from tierform.workload.operator import Kind, Operand, Role

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)

def build():
    return Net()

def loss(model, batch):
    return nn.functional.mse_loss(model(batch["x"]), batch["y"])

def data():
    return lambda step: {"x": torch.ones(8, 64), "y": torch.zeros(8, 4)}
"""
FILE = """
model: own.py:build
loss: own.py:loss
data: {module: "own.py:data"}
steps: 1000
batch: 8
low_rank: {rank: 2, targets: ["1"], also_train: [head]}
rule: {kind: hpt, window: 10}
output: out
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    path = tmp_path / "own.yaml"
    path.write_text(FILE)
    return path


def test_phases_and_the_whole_run(config: Path) -> None:
    found = predict(load_config(config), config.parent, load_chip("a100"))
    full, low, trial = found.full, found.low, found.trial
    assert trial.seconds == full.seconds + low.seconds and trial.memory_B == full.memory_B + low.memory_B
    assert full.seconds == pytest.approx(full.forward_s + full.backward_s + full.update_s)
    # Full: 12,740 parameters of 16 bytes each; low-rank: those frozen of 2, those that learn (head and adapter) of 16.
    learned, adapter = 64 * 4 + 4, 2 * (64 + 64)
    states = 3 * (64 * 64 + 64) * 2 + (learned + adapter) * 16
    assert full.memory_B > 16 * (3 * (64 * 64 + 64) + learned)
    assert states < low.memory_B < states + 40_000 < full.memory_B
    assert low.update_s < full.update_s
    first, *middle, never = found.runs
    assert first.switch == 50 and first.trial == 10 and [run.switch for run in middle] == [100, 200, 500]
    assert first.seconds == pytest.approx(50 * full.seconds + 10 * low.seconds + 950 * low.seconds)
    assert never.switch is None and never.seconds == 1000 * full.seconds and never.saved_time == 0
    saved = [run.saved_time * (1 if low.seconds < full.seconds else -1) for run in (first, *middle)]
    assert saved == sorted(saved, reverse=True)


def test_rules_switch_at_the_earliest_when_they_can() -> None:
    assert earliest(HpTRule(480)) == 2400  # four windows and the trial's
    assert earliest(LossPlateau(10, patience=2)) == 40 and earliest(LossPlateau(10, patience=2, trial=False)) == 30
    assert earliest(IntrinsicDimension(10, dimension=4)) == 20
    assert earliest(FixedStep(25, window=10)) == 30 and switches(FixedStep(25, window=10), 1000) == [30]
    assert switches(HpTRule(480), 2000) == []  # the run is too short to switch


def test_a_chip_of_crossbars_takes_the_library_s_model(tmp_path: Path) -> None:
    path = tmp_path / "wind.yaml"
    path.write_text("model: wind\ndata: {synthetic: 16}\nsteps: 9600\nrule: {kind: hpt, window: 480}\noutput: out\n")
    found = predict(load_config(path), tmp_path, load_chip("hpt"))
    assert "hpt-wind" in found.notes[0] and found.low.seconds < found.full.seconds
    assert [run.switch for run in found.runs] == [2400, 4800, None]


def test_the_command_and_its_mistakes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = config.parent / "p.json"
    with pytest.raises(SystemExit) as done:
        main(["tune", str(config), "--predict", "--chip", "a100", "--json", str(target)])
    assert not done.value.code
    assert "switch after step" in capsys.readouterr().out
    written = json.loads(target.read_text())
    assert written["schema"] == "tierform.prediction/1" and written["runs"][-1]["saved_time"] == 0
    assert not (config.parent / "out").exists()
    for given, told in (
        (["--predict"], "needs a chip"),
        (["--chip", "a100"], "only a prediction"),
        (["--predict", "--chip", "a100", "--check"], "takes no step"),
        (["--predict", "--chip", "b2000"], "b200"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(["tune", str(config), *given])
        assert refused.value.code == 2
        assert told in " ".join(capsys.readouterr().err.split())


def test_a_processor_s_kernels_by_hand() -> None:
    device = load_chip("a100").components["gpu"]
    assert isinstance(device, Gpu)
    stage = expand(load_model("hpt-wind"), Training(batch=1, sequence=57)).stages[0]
    operators = [one for wave in stage.waves for block in wave.blocks for one in block.operators]
    drops = [one for one in operators if one.kind is Kind.ELEMENTWISE and len(one.outputs) > 1]
    adds = [one for one in operators if one.kind is Kind.ELEMENTWISE and len(one.outputs) == 1]
    constant = replace(device.parameters.launch, value=1e-9)
    own = device.at(
        light_time={
            "dropout": replace(constant, value=10e-9),
            "elementwise": constant,
            "random": replace(constant, value=7e-9),
        },
        launch=replace(constant, value=0.0),
        issue=replace(constant, value=5e-6),
        view=replace(constant, value=2e-6),
        in_step_time=replace(constant, value=1.25),
    )
    for one, element_s in ((drops[0], 10e-9), (adds[0], 1e-9)):
        assert own.cost(one).latency_s == pytest.approx(1.25 * (5e-6 + one.outputs[0].elements * element_s))
    # An addition reads two and writes one: a kernel that reads one and writes none of its elements takes a third.
    one = replace(adds[0], inputs=adds[0].outputs, outputs=(Operand("sum", (1,), "fp32", Role.ACTIVATION),))
    crossed = (one.inputs[0].elements + 1) / 3
    assert own.cost(one).latency_s == pytest.approx(1.25 * (5e-6 + crossed * 1e-9))
    drawn = replace(one, inputs=(), outputs=(Operand("mask", (1000,), "int8", Role.ACTIVATION),))
    assert own.cost(drawn).latency_s == pytest.approx(1.25 * (5e-6 + 1000 * 7e-9))
    views = replace(one, inputs=(), outputs=(), count=3)
    assert own.issues_kernels and own.cost(views).latency_s == pytest.approx(3 * 2e-6)
    check(own)


def test_a_processor_runs_every_kernel_that_is_dispatched(config: Path, tmp_path: Path) -> None:
    """Forward: three products with functions, one without, the loss; on a board the same step is ten operators."""
    device = Device(
        "Made-up",
        "cpu",
        "fp32",
        1e11,
        2e10,
        2e-6,
        1,
        2.5e9,
        32e6,
        8e9,
        issue_s=1.0,
        view_s=1e-9,
        light_s=(("elementwise", 1e-12),),
    )
    shapes = chosen_shapes(device, 60)
    rows = [Sample(device.name, "product", "fp32", shape, 1e-6 + 2e-11 * math.prod(shape)) for shape in shapes]
    write_files(calibrate(device, rows), "made-up", tmp_path)
    found = predict(load_config(config), config.parent, load_chip(tmp_path / "made-up.yaml"))
    # A kernel takes a second: addmm four times, relu three times, the loss.
    assert found.full.forward_s == pytest.approx(8, rel=1e-3)
    # Loss; of the head a weight gradient, a sum and an input gradient, of layers too, but of the first no input's.
    assert found.full.backward_s == pytest.approx(1 + 4 * 3 - 1 + 3 + 1, rel=1e-3)
