"""What a task asks for and cannot have: of its model, of its micro-batches, of the chips that share it."""

from __future__ import annotations

from tierform.errors import Problem, TierformError
from tierform.workload.adapter_methods import GaLore, PromptTuning
from tierform.workload.context import context_problems
from tierform.workload.drafts import decoding_problems
from tierform.workload.methods import optimizer_of
from tierform.workload.models import Model
from tierform.workload.ops.optimizer import optimizer_problems
from tierform.workload.parallel import MicroBatches, Parallelism, check_tensor, split_problems
from tierform.workload.recomputation import layer_problems
from tierform.workload.spread import Spread, expert_problems
from tierform.workload.task import FineTuning, Inference, SequenceGroup, Step, Task


def check_task(model: Model, task: Task, micro_batches: MicroBatches, split: Parallelism) -> None:
    """TierformError with everything that a task, its micro-batches and its split ask for and cannot have."""
    problems = [*_batch_problems(task, micro_batches, split), *_length_problems(model, task)]
    if isinstance(task, (Inference, Step)):
        problems += _store_problems(model, task)
    if isinstance(task, Inference):
        problems += _phase_problems(model, task)
        if task.decoding is not None:
            problems += decoding_problems(model, task.decoding, task.sequence, split.pipeline)
            if not task.decode:
                problems.append(Problem("drafts are for tokens that are generated", key="decode", value=0))
    if isinstance(task, Step):
        problems += _step_problems(model, task)
    if isinstance(task, FineTuning):
        problems += split_problems(True, micro_batches.training * task.gradient_accumulation, split)
        if split.overlap and micro_batches.training > 1:
            what = "gradients of several micro-batches of one pass cannot be reduced beside the last of them"
            fix = "Give one micro-batch; gradient_accumulation may be larger."
            problems.append(Problem(what, key="overlap", value=micro_batches.training, fix=fix))
    else:
        problems += split_problems(False, 1, split)
    if split.tensor > 1:
        try:
            check_tensor(model, split.tensor, whole_experts=split.expert > 1 and not Spread.of(split).over_copies)
        except TierformError as error:
            problems += error.problems
    if isinstance(task, FineTuning):
        if task.fused_update:
            problems += _fused_problems(task, micro_batches, split)
        problems += layer_problems(task.recomputation, model.layers + model.decoder_layers)
    problems += expert_problems(model, split) + context_problems(model, task, split)
    if isinstance(task, FineTuning):
        problems += [*optimizer_problems(optimizer_of(task), split), *_method_problems(model, task)]
    if problems:
        raise TierformError(dict.fromkeys(problems))


def _method_problems(model: Model, task: FineTuning) -> list[Problem]:
    """What a method asks for that a model or the rest of the task does not give."""
    problems = []
    if isinstance(task.method, PromptTuning) and model.kind != "decoder":
        what = f"a learned prompt stands in front of a decoder's tokens, and {model.name} is none"
        problems.append(Problem(what, key="method", value="prompt", fix="Choose another method, for example lora."))
    if isinstance(task.method, GaLore) and task.optimizer != "adamw":
        what = "GaLore is AdamW in a subspace"
        problems.append(Problem(what, key="optimizer", value=task.optimizer, fix="Leave optimizer at adamw."))
    return problems


def _fused_problems(task: FineTuning, micro_batches: MicroBatches, split: Parallelism) -> list[Problem]:
    """A gradient that is used and dropped at once is that of the whole batch, on one chip of the batch."""
    problems = []
    parts = {"gradient_accumulation": task.gradient_accumulation, "micro_batches": micro_batches.training}
    for key, number in {**parts, "data": split.data, "context": split.context, "pipeline": split.pipeline}.items():
        if number > 1:
            what = "an update in the backward pass needs the gradient of the whole batch at once"
            problems.append(Problem(what, key=key, value=number, fix=f"Set {key} to 1, or leave fused_update out."))
    return problems


def _batch_problems(task: Task, micro_batches: MicroBatches, split: Parallelism) -> list[Problem]:
    groups = task.groups if isinstance(task, Step) else (SequenceGroup(task.batch),)
    problems = [
        Problem(f"a batch of {group.sequences} does not divide among {split.data} copies", key="data", value=split.data)
        for group in groups
        if group.sequences % split.data
    ]
    if problems:
        return problems
    batch = sum(group.sequences for group in groups) // split.data
    for phase in _phases(task):
        parts = getattr(micro_batches, phase)
        if parts > batch:
            problems.append(
                Problem(
                    f"a batch of {batch} cannot be cut into {parts} micro-batches",
                    key=f"micro_batches.{phase}",
                    value=parts,
                    fix=f"Choose at most {batch}.",
                )
            )
    return problems


def _store_problems(model: Model, task: Inference | Step) -> list[Problem]:
    """What a cache policy or an expert store asks for that the model does not have."""
    problems = []
    policy, store = task.kv, task.experts
    if policy is not None and not model.generative:
        problems.append(Problem(f"{model.name} has no cache of keys and values", key="kv"))
    elif policy is not None and model.latent_attention and policy.kept(2**40) < 2**40:
        problems.append(Problem("policies that drop tokens are not laid out for latent attention", key="kv"))
    if store is not None and not model.experts:
        problems.append(Problem(f"{model.name} has no experts", key="experts"))
    elif store is not None and store.routing and len(store.routing) != model.experts:
        what = f"{model.name} has {model.experts} experts in a layer"
        fix = "Give the popularity of each of them."
        problems.append(Problem(what, key="experts.routing", value=len(store.routing), fix=fix))
    return problems


def _phases(task: Task) -> tuple[str, ...]:
    if isinstance(task, FineTuning):
        return ("training",)
    if isinstance(task, Step):
        return ("decode" if all(group.past for group in task.groups) else "prefill",)
    return (*(("prefill",) if task.prefill else ()), *(("decode",) if task.decode else ()))


def farthest_token(model: Model, task: Task) -> int:
    """Number of positions that a sequence of a task takes at its end, those of generated tokens with it."""
    return task.sequence + (task.decode if isinstance(task, Inference) and model.kind == "decoder" else 0)


def _length_problems(model: Model, task: Task) -> list[Problem]:
    length = farthest_token(model, task)
    if model.fixed_tokens or model.positions != "learned" or length <= model.max_positions:
        return []
    what = f"{model.name} has learned positions for at most {model.max_positions} tokens"
    return [Problem(what, key="sequence", value=length, fix="Shorten the sequence (with its decoded tokens).")]


def _phase_problems(model: Model, task: Inference) -> list[Problem]:
    problems = []
    if not model.generative:
        if task.decode:
            what = f"{model.name} does not generate tokens"
            problems.append(Problem(what, key="decode", value=task.decode, fix="Leave decode at 0."))
        if not task.prefill:
            problems.append(Problem(f"{model.name} has no decode phase to leave prefill out for", key="prefill"))
    if not task.prefill and not task.decode:
        problems.append(Problem("neither prefill nor decode is asked for", key="decode", value=task.decode))
    return problems


def _step_problems(model: Model, task: Step) -> list[Problem]:
    problems = []
    if model.kind == "encoder-decoder":
        what = f"{model.name} reads a sequence and writes another: a step of sequence groups cannot say both"
        problems.append(Problem(what, key="groups", fix="Use Inference(batch, sequence, decode)."))
    elif not model.generative and any(group.past for group in task.groups):
        problems.append(Problem(f"{model.name} has no cache of past tokens", key="groups", fix="Leave past at 0."))
    if model.fixed_tokens and any(group.new != model.fixed_tokens for group in task.groups):
        what = f"{model.name} takes {model.fixed_tokens} tokens of a sample, no other number"
        problems.append(Problem(what, key="groups", fix=f"Set new to {model.fixed_tokens}."))
    return problems
