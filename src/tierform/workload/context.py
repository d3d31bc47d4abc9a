"""What sharing the tokens of each sequence among chips asks for: see :mod:`tierform.workload.ops.ring`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.errors import Problem
from tierform.workload.adapter_methods import PromptTuning
from tierform.workload.task import FineTuning, Inference, Step, Task

if TYPE_CHECKING:
    from tierform.workload.models import Model
    from tierform.workload.parallel import Parallelism


def context_problems(model: Model, task: Task, split: Parallelism) -> list[Problem]:
    """What a model or a task does not give to chips that share the tokens of a sequence."""
    if split.context == 1:
        return []
    problems = []

    def cannot(what: str, fix: str = "Leave context out.") -> None:
        problems.append(Problem(what, key="context", value=split.context, fix=fix))

    if isinstance(task, Step) or (isinstance(task, Inference) and (task.decode or not task.prefill)):
        fix = "Give inference with decode=0, or training; decoding shares its heads by tensor."
        cannot("chips share the tokens of training and of prompts; a step of single tokens has none to share", fix)
    if isinstance(task, Inference) and task.kv is not None:
        cannot("a cache that drops tokens is not laid out for chips that share a sequence")
    if model.latent_attention or model.kind == "encoder-decoder":
        what = "latent attention" if model.latent_attention else "an encoder and a decoder"
        cannot(f"{model.name} has {what}, which is not laid out for chips that share a sequence")
    length = model.fixed_tokens or task.sequence
    if isinstance(task, FineTuning) and isinstance(task.method, PromptTuning):
        length += task.method.tokens
    if 0 < model.sliding_window < length:
        what = f"{model.name} sees {model.sliding_window} tokens back, and a ring passes all {length} round"
        cannot(what, f"Give a sequence of at most {model.sliding_window}, or leave context out.")
    chunks = 2 * split.context if model.kind == "decoder" else split.context
    if length % chunks:
        below, above = length // chunks * chunks, -(-length // chunks) * chunks
        near = " or ".join(str(size) for size in (below, above) if size)
        what = f"{length} tokens do not divide into {chunks} equal chunks for {split.context} chips"
        problems.append(Problem(what, key="context", value=split.context, fix=f"Give a sequence of {near}."))
    return problems
