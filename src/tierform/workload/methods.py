"""Which parameters learn under each fine-tuning method, layer by layer.

The rules: full, everything; LoRA and QLoRA, only the low-rank pairs beside the targets (QLoRA keeps attention and FFN
matrices in its 4-bit format); bottleneck adapters, the adapters and the layers' normalizations (Houlsby et al., 2019);
BitFit, biases and normalization shifts (Ben Zaken et al., 2021); last layers, the last blocks with the final
normalization and the head, but not a head that is tied to the embedding.  A head that is new for the task
(classification, question answering) always learns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tierform.errors import fail
from tierform.workload.adapter_methods import IA3, DoRA, GaLore, LoRAFA, PromptTuning, VeRA
from tierform.workload.ops.galore import galore_name
from tierform.workload.recomputation import recomputation_of
from tierform.workload.tape import Learning
from tierform.workload.task import Adapters, BitFit, FineTuning, Full, LoRA, QLoRA, Task

if TYPE_CHECKING:
    from tierform.workload.models import Model

VARIANTS: dict[type, str] = {DoRA: "dora", LoRAFA: "lora-fa", VeRA: "vera", IA3: "ia3"}
NEW_HEADS = ("sequence-classification", "token-classification", "question-answering", "image-classification")


def optimizer_of(task: FineTuning) -> str:
    """The optimizer as the update knows it: GaLore's is AdamW in a subspace."""
    method = task.method
    return galore_name(method.rank, method.every, method.scale) if isinstance(method, GaLore) else task.optimizer


def learning(task: Task, model: Model, part: int | str, layers: int) -> Learning:
    """What learns in layer `part` of `layers`, or in the parts before (``embedding``) or after them (``head``)."""
    rule = _learning(task, model, part, layers)
    if not isinstance(task, FineTuning) or task.recomputation == "none" or not isinstance(part, int):
        return rule
    return replace(rule, recomputation=recomputation_of(task.recomputation, part))


def _learning(task: Task, model: Model, part: int | str, layers: int) -> Learning:
    if not isinstance(task, FineTuning):
        several = task.adapters
        if several is None:
            return Learning()
        return Learning(
            lora_rank=several.rank,
            lora_targets=frozenset(several.targets),
            adapters=(several.used, several.in_memory),
        )
    method = task.method
    new_head = model.head in NEW_HEADS
    if isinstance(method, Full | GaLore):
        return Learning(matrices=True, biases=True, normalization=True, embeddings=True, head=True)
    if isinstance(method, LoRA | QLoRA):
        saved = set(method.modules_to_save) if isinstance(method, LoRA) else set()
        return Learning(
            lora_rank=method.rank,
            lora_targets=frozenset(method.targets),
            head=new_head or "head" in saved,
            embeddings="embedding" in saved,
            normalization="normalization" in saved,
            quantized=method.weights if isinstance(method, QLoRA) else None,
        )
    if isinstance(method, DoRA | LoRAFA | VeRA | IA3):
        rank = 1 if isinstance(method, IA3) else method.rank
        return Learning(
            lora_rank=rank, lora_targets=frozenset(method.targets), variant=VARIANTS[type(method)], head=new_head
        )
    if isinstance(method, PromptTuning):
        return Learning(prompt=method.tokens, head=new_head)
    if isinstance(method, Adapters):
        return Learning(bottleneck=method.bottleneck, normalization=isinstance(part, int), head=new_head)
    if isinstance(method, BitFit):
        return Learning(biases=True, head=new_head)
    if method.layers > layers:
        fail(f"the model has only {layers} layers", key="layers", value=method.layers)
    if part == "head":
        return Learning(normalization=True, head=True)
    if isinstance(part, int) and part >= layers - method.layers:
        return Learning(matrices=True, biases=True, normalization=True)
    return Learning()
