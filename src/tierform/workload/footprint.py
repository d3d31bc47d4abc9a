"""How many bytes a task keeps: weights, adapters, gradients, optimizer states, activations, KV cache.

Activations in training are what backward keeps of every layer (each kept tensor counted once, from the operators'
own list; Korthikanti et al., 2022, give the closed form for one architecture) plus what one layer recomputes;
micro-batches are taken one after the other.  In inference they are the largest set alive at one operator of one layer.
NormalFloat weights carry 0.127 bit each for their double-quantized block scales (Dettmers et al., 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.workload.arithmetic import OPTIMIZER_STATES
from tierform.workload.graph import Footprint, Weight
from tierform.workload.operator import Operator, Role
from tierform.workload.precision import bits
from tierform.workload.task import FineTuning, Inference, Task
from tierform.workload.update import master_format

if TYPE_CHECKING:
    from tierform.workload.models import Model

BLOCK_SCALE_BITS = 0.127


def footprint(model: Model, task: Task, weights: tuple[Weight, ...], activations_B: int, *, eager: bool) -> Footprint:
    """The task's memory by part, in bytes."""
    base = sum(_stored_B(w) for w in weights if not w.adapter)
    adapters = sum(_stored_B(w) for w in weights if w.adapter)
    if isinstance(task, Inference):
        cache = kv_cache_B(model, task, eager=eager) if model.generative else 0
        return Footprint(weights=base, adapters=adapters, activations=activations_B, kv_cache=cache)
    learned = [w for w in weights if w.trainable]
    total = sum(w.total for w in learned)
    plan = task.precision
    return Footprint(
        weights=base,
        adapters=adapters,
        gradients=_bytes(total, plan.gradients),
        optimizer_states=OPTIMIZER_STATES[task.optimizer] * _bytes(total, plan.optimizer_states),
        master_weights=sum(_bytes(w.total, master) for w in learned if (master := master_format(w, task))),
        activations=activations_B,
    )


def kv_cache_B(model: Model, task: Inference, *, eager: bool = False) -> int:
    """Bytes of the cache when the last token has been decoded.

    Per token and layer 2 * kv_heads * head_dim values; latent attention keeps kv_lora_rank + qk_rope_head_dim
    (DeepSeek-V2, 2024); a sliding window keeps no more than its width; an encoder-decoder also keeps the keys and
    values of its cross-attention.
    """
    pair = 2 * model.kv_heads * model.head_dim
    if model.kind == "encoder-decoder":
        values = model.decoder_layers * pair * (1 + task.decode + task.sequence)
        return _bytes(task.batch * values, task.precision.kv_cache)
    length = task.sequence + task.decode
    if model.sliding_window and not eager:
        length = min(length, model.sliding_window)
    per_token = model.kv_lora_rank + model.qk_rope_head_dim if model.latent_attention else pair
    return _bytes(task.batch * model.layers * length * per_token, task.precision.kv_cache)


def peak_B(operators: list[Operator]) -> int:
    """The largest number of bytes of activations alive at one operator of a layer."""
    last: dict[str, int] = {}
    for index, operator in enumerate(operators):
        for operand in operator.inputs:
            last[operand.name] = index
    alive: dict[str, int] = {}
    peak = 0
    for index, operator in enumerate(operators):
        for operand in (*operator.inputs, *operator.outputs):
            if operand.role is Role.ACTIVATION:
                size = operand.size_B * operator.count
                alive[operand.name] = max(alive.get(operand.name, 0), size)
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > index}
    return peak


def _stored_B(weight: Weight) -> int:
    extra = int(weight.total * BLOCK_SCALE_BITS / 8) if weight.precision == "nf4" else 0
    return weight.size_B + extra


def _bytes(number: int, precision: str) -> int:
    return -(-number * bits(precision) // 8)


__all__ = ["FineTuning", "footprint", "kv_cache_B", "peak_B"]
