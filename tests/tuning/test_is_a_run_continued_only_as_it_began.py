"""Is everything that decides a run compared when it goes on, and is a forged checkpoint refused?"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from small_network import Small, mse, small_batch

from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.files import folder_lock
from tierform.tuning import checkpoint
from tierform.tuning.config import load_config
from tierform.tuning.lowrank import LowRank
from tierform.tuning.rule import FixedStep
from tierform.tuning.run import run
from tierform.tuning.side import optimizer
from tierform.tuning.trainer import HybridTrainer

MODEL = """
import torch
from torch import nn
print("user code runs")
class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_linear, self.v_linear = nn.Linear(8, 8), nn.Linear(8, 8)
    def forward(self, x):
        return x + torch.tanh(self.q_linear(x)) * self.v_linear(x)
def build():
    return nn.Sequential(nn.Linear(4, 8), Layer(), nn.Dropout(0.1), nn.Linear(8, 1))
def batches():
    def batch(step):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return x, x.sum(1, keepdim=True)
    return batch
def loss(model, batch):
    return ((model(batch[0]) - batch[1]) ** 2).mean()
"""
CONFIG = """
model: my.py:build
data: {module: "my.py:batches"}
loss: my.py:loss
steps: 30
seed: 4
optimizer: {kind: adam, learning_rate: 0.001, decay: [5, 0.5]}
rule: {kind: fixed, step: 10, window: 5, trial: true}
low_rank: {rank: 2}
checkpoint_every: 5
output: out
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my.py").write_text(MODEL)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The output folder of a run."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "my.py").write_text(MODEL)
    tune(folder)
    return folder / "out"


def tune(folder, config=CONFIG, **options):
    (folder / "c.yaml").write_text(config)
    return run(load_config(folder / "c.yaml"), folder, **options)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed: 4", "seed: 5", "seed"),
        ("kind: adam", "kind: adamw", "optimizer"),
        ("kind: adam", "kind: sgd", "optimizer"),
        ("learning_rate: 0.001", "learning_rate: 0.002", "optimizer"),
        ("decay: [5, 0.5]", "decay: [5, 0.4]", "optimizer"),
        ("decay: [5, 0.5]", "decay: [6, 0.5]", "optimizer"),
        (", decay: [5, 0.5]", "", "optimizer"),
        ("rule:", "low_optimizer: {kind: sgd}\nrule:", "low_optimizer"),
        ("my.py:batches", "my.py:others", "run.data"),
        ("seed: 4", "seed: 4\nbatch: 2", "run.batch"),
        ("seed: 4", "seed: 4\nstart: low", "run.start"),
    ],
)
def test_is_a_run_with_another_setting_refused(folder, begun, old, new, key):
    (folder / "my.py").write_text(MODEL + "others = batches\n")
    shutil.copytree(begun, folder / "out")
    with pytest.raises(TierformError, match="another setting") as caught:
        tune(folder, CONFIG.replace(old, new))
    assert key in {one.key for one in caught.value.problems}


def test_does_fresh_begin_anew_with_another_setting(folder, begun):
    shutil.copytree(begun, folder / "out")
    assert tune(folder, CONFIG.replace("seed: 4", "seed: 5"), fresh=True)["steps"] == 30


def test_are_other_samples_refused(tmp_path):
    config = "model: wind\ndata: {series: w.csv, test_rows: [30, 50], history: 12}\nsteps: 1\nseed: 1\noutput: out\n"
    config += "rule: {kind: never}\n"
    table = [",".join(str((row * 7 + station) % 13) for station in range(57)) for row in range(60)]
    (tmp_path / "w.csv").write_text("\n".join(table))
    import tierform

    history = tierform.load_model("hpt-wind").input_size
    config = config.replace("history: 12", f"history: {history}")
    tune(tmp_path, config)
    (tmp_path / "w.csv").write_text("\n".join([table[0].replace("0", "0.5", 1), *table[1:]]))
    with pytest.raises(TierformError, match=r"run\.data"):
        tune(tmp_path, config.replace("steps: 1", "steps: 2"))


def test_do_two_processes_never_share_an_output_folder(folder, capsys):
    (folder / "out").mkdir()
    with folder_lock(folder / "out"), pytest.raises(SystemExit) as caught:
        main(["tune", str(folder / "c.yaml")])
    assert caught.value.code == 2
    assert "another process is writing into this folder" in capsys.readouterr().err


def test_does_a_check_run_no_code_of_the_user(folder, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["tune", str(folder / "c.yaml"), "--check"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "user code runs" not in told
    assert "my.py:batches was found and not run" in told
    for config, words in (
        (CONFIG.replace("my.py:loss", "my.py:lss"), "did you mean 'loss'"),
        (CONFIG.replace("my.py:loss", "mine.py:loss"), "no such file"),
        (CONFIG.replace("my.py:loss", "no_such_package:loss"), "no such package"),
    ):
        (folder / "c.yaml").write_text(config)
        with pytest.raises(SystemExit):
            main(["tune", str(folder / "c.yaml"), "--check"])
        assert words in capsys.readouterr().err
    (folder / "my.py").write_text("def build(:\n")
    with pytest.raises(SystemExit):
        main(["tune", str(folder / "c.yaml"), "--check"])
    assert "my.py:1: this is no Python" in capsys.readouterr().err


def test_does_a_killed_run_go_on_bit_by_bit(folder):
    whole = folder / "whole"
    whole.mkdir()
    (whole / "my.py").write_text(MODEL)
    tune(whole, CONFIG.replace("steps: 30", "steps: 40"))
    (folder / "my.py").write_text(MODEL.replace("def batch(step):", "def batch(step):\n        time.sleep(0.02)", 1))
    (folder / "my.py").write_text("import time\n" + (folder / "my.py").read_text())
    (folder / "c.yaml").write_text(CONFIG.replace("steps: 30", "steps: 40"))
    path = folder / "out" / "run.tft"
    for _ in range(3):  # killed as soon as a new checkpoint lies there, three times
        before = path.stat().st_mtime_ns if path.exists() else 0
        running = subprocess.Popen(
            [sys.executable, "-m", "tierform", "tune", "c.yaml"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        while running.poll() is None and (path.stat().st_mtime_ns if path.exists() else 0) == before:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.wait()
    subprocess.run(
        [sys.executable, "-m", "tierform", "tune", "c.yaml"],
        cwd=folder,
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    one, other = (json.loads((place / "out" / "log.json").read_text()) for place in (whole, folder))
    assert [row[:4] for row in one["rows"]] == [row[:4] for row in other["rows"]]
    weights = [(place / "out" / "model.safetensors").read_bytes() for place in (whole, folder)]
    assert weights[0] == weights[1]
    assert not [one.name for one in (folder / "out").iterdir() if one.name.endswith(".part")]


def small():
    torch.manual_seed(0)
    schedule = {"schedule": lambda made: torch.optim.lr_scheduler.StepLR(made, 5, 0.5)}
    rule = FixedStep(4, window=2, trial=True)
    return HybridTrainer(Small(), mse, rule, LowRank(rank=2), optimizer=optimizer("adamw", 1e-2), **schedule)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The content of a checkpoint in each phase."""
    path, found, trainer = tmp_path_factory.mktemp("runs") / "run.tft", {}, small()
    for step in range(9):
        trainer.step(small_batch(step))
        if trainer.phase not in found and (trainer.phase != "trial" or trainer._pair[0]):
            trainer.save(path)
            found[trainer.phase] = path.read_bytes().partition(b"\n")[2]
    assert set(found) == {"full", "trial", "low"}
    return found


def _set(*keys):
    def change(content, value):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


NAN = float("nan")
FORGERIES = [
    ("full", _set("step"), -5),
    ("full", _set("step"), 2.0),
    ("full", _set("step"), 10**30),
    ("full", _set("phase"), "low"),
    ("full", _set("phase"), ["full"]),
    ("full", _set("ranks"), {"layers.0.q_linear": 10**9}),
    ("full", _set("rule"), {}),
    ("full", _set("rule", "windows"), -1),
    ("full", _set("rule", "losses"), [NAN]),
    ("full", _set("window"), [1.0] * 50),
    ("full", _set("window"), "none"),
    ("full", _set("journal"), None),
    ("full", _set("journal", "rows"), [[1, "full", 1.0]]),
    ("full", _set("journal", "rows", 0, 2), float("inf")),
    ("full", _set("journal", "decisions"), [{"step": 1}]),
    ("full", _set("full"), None),
    ("full", _set("full", "model"), {}),
    ("full", _set("full", "model", "start.weight"), torch.zeros(3)),
    ("full", _set("full", "model", "start.weight"), torch.full((16, 4), NAN)),
    ("full", _set("full", "optimizer", "param_groups"), []),
    ("full", _set("full", "optimizer", "param_groups", 0, "lr"), "fast"),
    ("full", _set("full", "optimizer", "param_groups", 0, "betas"), None),
    ("full", _set("full", "optimizer", "param_groups", 0, "betas"), (torch.ones(3), 0.999)),
    ("full", _set("full", "optimizer", "state", 0), {"step": torch.tensor(1.0)}),
    ("full", _set("full", "optimizer", "state", 0, "exp_avg"), torch.zeros(1)),
    ("full", _set("full", "schedule"), {"last_epoch": "x"}),
    ("full", _set("full", "schedule"), torch.ones(3)),
    ("full", _set("full", "schedule"), 7),
    ("full", _set("full", "schedule", "step_size"), 0.5),
    ("full", _set("before"), {"start": torch.zeros(1)}),
    ("full", _set("recent"), None),
    ("full", _set("random"), {}),
    ("full", _set("random", "torch"), torch.zeros(3, dtype=torch.uint8)),
    ("full", _set("random", "python"), [3, [1, 2], None]),
    ("full", _set("random", "python", 0), torch.ones(3)),
    ("full", _set("random", "numpy", 0), torch.ones(3)),
    ("full", _set("random", "numpy", 2), 10**6),
    ("trial", _set("pair"), [[1.0], []]),
    ("trial", _set("low"), None),
    ("trial", _set("ranks"), {}),
    ("low", _set("full"), {"model": {}}),
    ("low", _set("low", "optimizer"), 7),
    ("low", _set("settings"), []),
]


@pytest.mark.parametrize(("phase", "change", "value"), FORGERIES)
def test_is_a_forged_checkpoint_with_a_right_digest_refused(tmp_path, kept, phase, change, value):
    content = torch.load(io.BytesIO(kept[phase]), weights_only=True)
    change(content, value)
    checkpoint.write(tmp_path / "forged.tft", content)
    with pytest.raises(TierformError, match=r"forged\.tft"):
        small().resume(tmp_path / "forged.tft")


@pytest.mark.parametrize("phase", ["full", "trial", "low"])
def test_is_what_was_not_forged_accepted(tmp_path, kept, phase):
    checkpoint.write(tmp_path / "right.tft", torch.load(io.BytesIO(kept[phase]), weights_only=True))
    run = small()
    run.resume(tmp_path / "right.tft")
    assert run.phase == phase
    run.step(small_batch(20))


def test_is_a_checkpoint_that_holds_no_run_refused(tmp_path):
    for content in ([1, 2], 7, None):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        import hashlib

        digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
        (tmp_path / "x.tft").write_bytes(checkpoint.MAGIC + digest + b"\n" + buffer.getvalue())
        with pytest.raises(TierformError, match="does not hold a run"):
            small().resume(tmp_path / "x.tft")
    (tmp_path / "old.tft").write_bytes(b"tierform.tuning/1 00\n")
    with pytest.raises(TierformError, match="another format"):
        small().resume(tmp_path / "old.tft")
