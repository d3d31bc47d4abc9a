import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from tierform.errors import TierformError
from tierform.tuning.callback import SwitchCallback
from tierform.tuning.lowrank import LowRank
from tierform.tuning.rule import Decision, FixedStep, HpTRule
from tierform.tuning.side import optimizer


class AtOnce(HpTRule):
    def end_window(self, window):
        self._keep(window)
        return Decision(window.step, "trial" if self.windows == 4 else "wait", "scripted", {"d": window.weight_change})

    def end_trial(self, step, full, low):
        return Decision(step, "switch", "scripted", {"n": len(low)})


def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, num_attention_heads=2, num_key_value_heads=2, **sizes))


def train(tmp_path, callback, steps=16, module=None):
    rows = [{"input_ids": (i := torch.randint(0, 32, (8,))), "labels": i} for _ in range(64)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=steps,
        per_device_train_batch_size=4,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=1e-3,
    )
    trainer = Trainer(model=module or model(), args=arguments, train_dataset=rows, callbacks=[callback])
    trainer.train()
    return trainer


def test_the_trainer_goes_on_with_the_low_rank_model(tmp_path):
    low = LowRank(rank=2, targets=("q_proj", "v_proj"), also_train=("lm_head",))
    callback = SwitchCallback(AtOnce(2), low, low_optimizer=optimizer("adamw", 1e-3))

    done = train(tmp_path, callback)
    assert callback.phase == "low" and callback.journal.switch_step == 10
    assert [row[1] for row in callback.journal.rows] == ["full"] * 8 + ["trial"] * 2
    learning = {n for n, p in done.model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or n == "lm_head.weight" for n in learning) and learning
    inner = getattr(done.optimizer, "optimizer", done.optimizer)
    states = {id(one) for one in inner.state}
    assert states == {id(p) for p in done.model.parameters() if p.requires_grad}
    moved = [p for n, p in done.model.named_parameters() if "lora_B" in n]
    assert all(one.abs().max() > 0 for one in moved)


def test_what_is_frozen_stands_still_after_the_switch(tmp_path):
    module = model()
    low = LowRank(rank=2, targets=("q_proj", "v_proj"))
    callback, kept = SwitchCallback(FixedStep(4), low), {}
    plain = callback._switch

    def noted(model_, trained_by):
        plain(model_, trained_by)
        kept.update({n: p.detach().clone() for n, p in model_.named_parameters() if not p.requires_grad})

    callback._switch = noted
    done = train(tmp_path, callback, 10, module)
    assert callback.phase == "low" and kept
    assert all(torch.equal(done.model.get_parameter(n), one) for n, one in kept.items())


def test_bad_settings_are_refused_before_the_first_step(tmp_path):
    with pytest.raises(TierformError, match="no linear layer"):
        train(tmp_path, SwitchCallback(FixedStep(4), LowRank(targets=("q_lin",))))
    with pytest.raises(TierformError, match="longer than the run"):
        train(tmp_path, SwitchCallback(HpTRule(50), LowRank(targets=("q_proj",))))


def resumable(folder, callback, steps, saves):
    torch.manual_seed(3)
    rows = [{"input_ids": (i := torch.randint(0, 32, (8,))), "labels": i} for _ in range(64)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        report_to=[],
        save_strategy="steps",
        save_steps=saves,
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
    )
    return Trainer(model=model(), args=arguments, train_dataset=rows, callbacks=[callback])


def switcher(rule=None):
    low = LowRank(rank=2, targets=("q_proj", "v_proj"), also_train=("lm_head", "model.norm"))
    return SwitchCallback(rule or AtOnce(3), low, low_optimizer=optimizer("adamw", 1e-3))


@pytest.mark.parametrize(("cut", "phase"), [(7, "full"), (12, "trial"), (13, "trial"), (15, "low"), (18, "low")])
def test_a_run_resumed_anywhere_goes_on_bit_by_bit(tmp_path, cut, phase):
    whole = resumable(tmp_path / "whole", first := switcher(), 20, 100)
    whole.train()
    assert [row[1] for row in first.journal.rows] == ["full"] * 12 + ["trial"] * 3
    resumable(tmp_path / "cut", switcher(), 20, cut).train()
    folder = tmp_path / "cut" / f"checkpoint-{cut}"
    callback = switcher()
    again = resumable(tmp_path / "cut", callback, 20, 100)
    callback.resume(again, folder)
    assert callback.phase == phase
    again.train(resume_from_checkpoint=str(folder))
    assert callback.journal.rows == first.journal.rows and callback.journal.decisions == first.journal.decisions
    found, wanted = again.model.state_dict(), whole.model.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_resumed_run_whose_switch_was_not_told_is_refused(tmp_path):
    resumable(tmp_path, switcher(), 8, 8).train()
    with pytest.raises(TierformError, match="was not told of"):
        resumable(tmp_path, switcher(), 20, 100).train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    other = switcher(AtOnce(4))
    with pytest.raises(TierformError, match="another setting"):
        other.resume(resumable(tmp_path, other, 20, 100), tmp_path / "checkpoint-8")
    with pytest.raises(TierformError, match="cannot be read"):
        switcher().resume(resumable(tmp_path, switcher(), 20, 100), tmp_path)
    used = switcher()
    resumable(tmp_path, used, 8, 100).train()
    with pytest.raises(TierformError, match="another run"):
        resumable(tmp_path, used, 8, 100).train()
