import hashlib
import itertools
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_network import Small, mse, small_batch

from tierform.errors import TierformError
from tierform.tuning.checkpoint import MAGIC
from tierform.tuning.intrinsic import intrinsic_dimension
from tierform.tuning.lowrank import LowRank, merged
from tierform.tuning.meter import TensorMemory, step_peak_B, step_shares
from tierform.tuning.rule import Decision, FixedStep, HpTRule, IntrinsicDimension
from tierform.tuning.side import optimizer
from tierform.tuning.trainer import HybridTrainer

K = 4


class Scripted(HpTRule):
    """Begins a trial at the fourth window whatever the losses are, and repeats it as often as told."""

    def __init__(self, repeats=0):
        super().__init__(K)
        self.left = repeats

    def end_window(self, window):
        self._keep(window)
        action = "trial" if self.windows >= 4 else "wait"
        return Decision(window.step, action, "scripted", {"change": window.weight_change})

    def end_trial(self, step, full, low):
        self.left -= 1
        return Decision(step, "repeat" if self.left >= 0 else "switch", "scripted", {"n": len(full)})


def trainer(rule=None, low=None, **options):
    torch.manual_seed(0)
    return HybridTrainer(
        Small(),
        mse,
        rule or Scripted(),
        low or LowRank(rank=2, alpha=4, also_train=("start", "end")),
        optimizer=optimizer("adamw", 1e-2),
        layer=-1,
        **options,
    )


def weights(model):
    return {name: one.detach().clone() for name, one in model.state_dict().items()}


def test_the_phases_come_at_the_steps_counted_by_hand():
    run = trainer(Scripted(repeats=1))
    journal = run.fit(small_batch, 30)
    phases = [row[1] for row in journal.rows]
    assert phases == ["full"] * 4 * K + ["trial"] * 2 * K + ["low"] * (30 - 6 * K)
    assert journal.switch_step == 6 * K
    assert [one.action for one in journal.decisions] == ["wait"] * 3 + ["trial", "repeat", "switch"]
    assert all((row[3] is not None) == (row[1] == "trial") for row in journal.rows)
    assert journal.projection()["saved_share"] is not None


def test_the_weight_change_is_the_norm_over_one_window():
    run = trainer()
    snapshots = []
    for step in range(3 * K):
        run.step(small_batch(step))
        if (step + 1) % K == 0:
            layer = run.model.layers[-1]
            snapshots.append(torch.cat((layer.q_linear.weight.detach(), layer.v_linear.weight.detach())).clone())
    changes = [one.numbers["change"] for one in run.journal.decisions]
    assert changes[0] is None
    for found, (a, b) in zip(changes[1:], itertools.pairwise(snapshots), strict=True):
        assert found == pytest.approx(float(torch.linalg.norm(b - a)), rel=1e-5)


def test_the_trial_leaves_the_full_model_as_it_would_be_without_dropout():
    run, alone = trainer(), trainer(FixedStep(10**6))
    for one in (run, alone):
        for module in one.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    for step in range(4 * K + 2):
        run.step(small_batch(step))
        alone.step(small_batch(step))
    assert run.phase == "trial"
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), alone.model.parameters(), strict=True))


def test_after_the_switch_only_adapters_and_named_parts_learn_and_the_rest_is_released():
    run = trainer()
    run.fit(small_batch, 5 * K)
    assert run.phase == "low" and run._full is None
    held = {name for name, one in run.model.named_parameters() if one.requires_grad}
    assert all("lora_" in name or name.startswith(("start", "end")) for name in held) and held
    frozen = {n: p.detach().clone() for n, p in run.model.named_parameters() if not p.requires_grad}
    run.step(small_batch(99))
    assert all(torch.equal(run.model.get_parameter(name), one) for name, one in frozen.items())
    assert all(run.model.get_parameter(name).grad is None for name in frozen)
    states = {id(one) for one in run.optimizer.state}
    assert states == {id(one) for one in run.model.parameters() if one.requires_grad}


def test_backward_is_cut_below_the_lowest_adapter():
    low = LowRank(rank=2, targets=("layers.2.q_linear",))
    run = trainer(FixedStep(1), low)
    run.step(small_batch(0))
    assert run.phase == "low"
    seen = []
    for index, layer in enumerate(run.model.layers):
        layer.register_full_backward_hook(lambda m, gi, go, index=index: seen.append(index))
        layer.register_forward_hook(lambda m, i, out, index=index: seen.append(("grad", index, out.requires_grad)))
    run.step(small_batch(1))
    assert [one for one in seen if isinstance(one, int)] == [2]
    assert [one[2] for one in seen if isinstance(one, tuple)] == [False, False, True]


@pytest.mark.parametrize("cut", [3, 4 * K, 4 * K + 2, 5 * K, 6 * K + 1])
def test_a_run_cut_anywhere_goes_on_bit_by_bit(tmp_path, cut):
    schedule = {"schedule": lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5)}
    whole = trainer(Scripted(repeats=1), **schedule)
    whole.fit(small_batch, 8 * K)
    first = trainer(Scripted(repeats=1), **schedule)
    first.fit(small_batch, cut, checkpoint=tmp_path / "run.tft") if cut >= K else None
    if cut < K:
        for step in range(cut):
            first.step(small_batch(step))
        first.save(tmp_path / "run.tft")
    left = first.rule.left
    torch.manual_seed(12345)
    second = HybridTrainer(
        Small(), mse, Scripted(), first.low_rank, optimizer=optimizer("adamw", 1e-2), layer=-1, **schedule
    )
    second.resume(tmp_path / "run.tft")
    second.rule.left = left
    second.fit(small_batch, 8 * K)
    assert [row[:4] for row in second.journal.rows] == [row[:4] for row in whole.journal.rows]
    one, other = weights(whole.model), weights(second.model)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_corrupted_or_foreign_checkpoint_is_refused(tmp_path):
    run = trainer()
    run.step(small_batch(0))
    path = tmp_path / "run.tft"
    run.save(path)
    spoilt = bytearray(path.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    (tmp_path / "spoilt.tft").write_bytes(spoilt)
    (tmp_path / "short.tft").write_bytes(path.read_bytes()[:-10])
    (tmp_path / "other.tft").write_text("hello")
    (tmp_path / "empty.tft").write_bytes(MAGIC + hashlib.sha256(b"").hexdigest().encode() + b"\n")
    for name, words in (
        ("spoilt", "damaged"),
        ("short", "damaged"),
        ("other", "not a checkpoint"),
        ("empty", "cannot be read"),
        ("none", "No such"),
    ):
        with pytest.raises(TierformError, match=words):
            trainer().resume(tmp_path / f"{name}.tft")
    with pytest.raises(TierformError) as caught:
        trainer(low=LowRank(rank=3, alpha=4, also_train=("start",))).resume(path)
    assert {one.key for one in caught.value.problems} == {"rank", "also_train"}
    other = Scripted()
    other.weight_threshold = 0.02
    with pytest.raises(TierformError, match=r"rule\.weight_threshold"):
        trainer(other).resume(path)
    wide = HybridTrainer(Small(width=8), mse, Scripted(), run.low_rank, layer=-1)
    with pytest.raises(TierformError, match="model"):
        wide.resume(path)


def test_a_loss_that_is_not_a_number_stops_and_loses_nothing(tmp_path):
    run = trainer()
    path = tmp_path / "run.tft"

    def batches(step):
        x, y = small_batch(step)
        return (x, y * math.nan) if step == 6 else (x, y)

    with pytest.raises(TierformError, match="finite"):
        run.fit(batches, 40, checkpoint=path, every=4)
    assert all(torch.isfinite(one).all() for one in run.model.parameters())
    assert run.step_number == 6
    again = trainer()
    again.resume(path)
    assert again.step_number == 4
    again.step(small_batch(4))


def test_an_interrupt_ends_the_step_and_writes_a_checkpoint(tmp_path):
    run, path = trainer(), tmp_path / "run.tft"

    def tell(one):
        if one.step_number == 18:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run.fit(small_batch, 40, checkpoint=path, tell=tell)
    again = trainer()
    again.resume(path)
    assert (again.step_number, again.phase) == (18, "trial")


def test_merging_gives_the_adapted_models_answers(small):
    run = trainer()
    run.fit(small_batch, 6 * K)
    x = small_batch(0)[0]
    plain = run.merged().eval()
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in small.named_parameters()]
    torch.testing.assert_close(plain(x), run.model.eval()(x))
    assert all(torch.equal(a, b) for a, b in zip(merged(small).parameters(), small.parameters(), strict=True))


def test_ranks_follow_the_spectrum_of_the_change():
    run = trainer(FixedStep(3 * K, window=K), LowRank(rank="spectrum", share=0.9, most=8))
    run.fit(small_batch, 4 * K)
    assert run.phase == "low" and set(run.ranks) == {
        f"layers.{i}.{name}_linear" for i in range(3) for name in ("q", "v")
    }
    found = {name.split(".lora_A")[0]: one.shape[0] for name, one in run.model.named_parameters() if "lora_A" in name}
    assert found == run.ranks and all(1 <= rank <= 8 for rank in found.values())
    scales = {m.scaling["default"] for m in run.model.modules() if hasattr(m, "scaling")}
    assert scales == {8.0}


def test_lora_from_the_start_and_bad_targets():
    run = trainer()
    run.switch()
    run.step(small_batch(0))
    assert run.journal.rows[0][1] == "low"
    with pytest.raises(TierformError) as caught:
        trainer(low=LowRank(targets=("q_linaer", "w_linear")))
    assert len(caught.value.problems) == 2 and caught.value.problems[0].nearest == "q_linear"
    with pytest.raises(TierformError, match="no such layer"):
        HybridTrainer(Small(), mse, Scripted(), LowRank(), layer=7)
    with pytest.raises(TierformError, match="window is longer"):
        trainer().fit(small_batch, K - 1)
    with pytest.raises(TierformError, match="begins so"):
        trainer(low=LowRank(also_train=("strat",))).switch()


class Line(torch.nn.Module):
    """One matrix, of which only the direction of the input matters: one dimension is enough, whichever it is."""

    def __init__(self):
        super().__init__()
        self.q_linear = torch.nn.Linear(1, 8, bias=False)

    def forward(self, x):
        return self.q_linear(x)


def test_the_intrinsic_dimension_of_a_task_made_by_hand():
    torch.manual_seed(0)
    model, loss = Line(), lambda m, b: ((m(b[0]) - b[1]) ** 2).mean()
    x = torch.ones(4, 1)
    away = model.q_linear.weight.detach().T + torch.tensor([[1.0, -1, 1, -1, 1, 1, -1, 1]])
    state = torch.get_rng_state()
    options = {"steps": 60, "learning_rate": 0.05, "dimensions": (1, 2, 4096)}
    found = intrinsic_dimension(model, loss, [(x, away.expand(4, 8))], ["q_linear.weight"], **options)
    # eight independent aims: a random line or plane cannot reach 90 % of the fall, a space of many more dimensions can
    assert found is not None and found > 2
    assert torch.equal(state, torch.get_rng_state())
    done = model.q_linear.weight.detach().T.expand(4, 8)
    assert intrinsic_dimension(model, loss, [(x, done)], ["q_linear.weight"], **options) is None


def test_the_intrinsic_rule_runs_in_the_trainer():
    run = trainer(IntrinsicDimension(K, 64, trial=False), dimensions=(1, 64))
    run.fit(small_batch, 3 * K)
    assert "intrinsic_dimension" in run.journal.decisions[0].numbers


def test_the_peak_counts_what_lives():
    with TensorMemory() as memory:
        a = torch.zeros(1000)
        b = a + 1
        del a
        c = b * 2
        del b, c
    assert memory.peak_B == 8000 and memory.now_B == 0


def test_peak_memory_falls_by_gradients_and_states_of_what_is_frozen():
    torch.manual_seed(0)
    model, batch = Small(width=256), (torch.randn(1, 4), torch.randn(1, 1))
    full = step_peak_B(model, mse, batch, torch.optim.AdamW(model.parameters(), foreach=False))
    settings = LowRank(rank=2, also_train=("start", "end"))
    run = HybridTrainer(model, mse, FixedStep(1), settings, layer=0, optimizer=optimizer("adamw", foreach=False))
    run.step(batch)
    frozen = sum(one.numel() for one in run.model.parameters() if not one.requires_grad)
    low = step_peak_B(run.model, mse, batch, run.optimizer)
    assert full - low == pytest.approx(12 * frozen, rel=0.1)


def test_shares_of_a_step_add_up(small):
    shares = step_shares(small, mse, small_batch(0), torch.optim.AdamW(small.parameters()), 3)
    assert all(value >= 0 for value in shares.values()) and shares["step_s"] > 0


PARALLEL = """
import hashlib, os, sys
sys.path.insert(0, {folder!r})
import torch
from accelerate import Accelerator
from small_network import Small, mse, small_batch
from tierform.tuning import FixedStep, HybridTrainer, LowRank, optimizer
accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
low = LowRank(rank=2, also_train=("end",))
rule = FixedStep(8, window=4, trial=True, alpha=1e-9)
run = HybridTrainer(Small(), mse, rule, low, optimizer=optimizer("adamw", 1e-2), accelerator=accelerator)
torch.manual_seed(accelerator.process_index)
run.fit(lambda step: small_batch(2 * step + accelerator.process_index), 20)
weights = b"".join(one.detach().numpy().tobytes() for one in run.model.parameters())
told = ("RESULT", run.phase, run.journal.switch_step, hashlib.sha256(weights).hexdigest(), run.journal.rows[-1][2])
os.write(1, (" ".join(map(str, told)) + "\\n").encode())  # in one piece: both processes write to the same pipe
"""


@pytest.mark.slow
def test_two_processes_decide_and_learn_alike(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(PARALLEL.format(folder=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    told = re.findall(r"RESULT (\w+ \w+ [0-9a-f]{64} [-+.e\d]+)", done.stdout)
    assert len(told) == 2, done.stdout[-500:] + done.stderr[-2000:]
    assert told[0] == told[1] and told[0].startswith("low 12 ")
