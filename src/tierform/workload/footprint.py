"""What the layers of a task keep: model states, KV cache, saved tensors, workspace.

Saved tensors are those that the backward rules read, each counted once, from the operators' own list (Korthikanti et
al., 2022, give the closed form for one architecture).  Workspace is the largest set of tensors alive at one operator
of a layer, forward or backward, that is not saved.  Attention scores are whole in memory with eager attention only:
tiled attention makes them block by block (but training keeps the probabilities), fused attention keeps a log-sum-exp
for each row.  Weights and cache carry the scales of their format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tierform.workload.formats import packed_B
from tierform.workload.graph import Weight
from tierform.workload.memory import Footprint
from tierform.workload.methods import optimizer_of
from tierform.workload.operator import Operator, Role
from tierform.workload.ops.optimizer import master_format, state_numbers
from tierform.workload.parallel import ALONE, Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.sharding import kept_numbers
from tierform.workload.task import FineTuning, Inference, Step, Task

if TYPE_CHECKING:
    from tierform.workload.models import Model


def states_of(
    weights: Iterable[Weight], task: Task, plan: PrecisionPlan, kv_cache_B: int = 0, split: Parallelism = ALONE
) -> Footprint:
    """What one layer with these weights keeps for the whole task, on one of the copies that may share it."""
    own = list(weights)
    copies = [split.copies if split.zero > stage else 1 for stage in range(3)]  # that share states, gradients, weights
    parts = {
        "weights": sum(packed_B(kept_numbers(w, copies[2]), w.precision, w.shape[-1]) for w in own if not w.adapter),
        "adapters": sum(packed_B(kept_numbers(w, copies[2]), w.precision, w.shape[-1]) for w in own if w.adapter),
        "kv_cache": kv_cache_B,
    }
    if isinstance(task, FineTuning):
        learned = [w for w in own if w.trainable]
        states: Counter[str] = Counter()
        for w in learned:
            for form, numbers in state_numbers(w, optimizer_of(task), plan, copies[0]):
                states[form] += numbers * w.groups
        parts |= {
            "gradients": packed_B(sum(kept_numbers(w, copies[1]) for w in learned), plan.weight_gradients),
            "optimizer_states": sum(packed_B(numbers, form) for form, numbers in states.items()),
            "master_weights": sum(
                packed_B(kept_numbers(w, copies[0]), master) for w in learned if (master := master_format(w, plan))
            ),
        }
    return Footprint(**parts)


def kv_layer_B(model: Model, task: Task, plan: PrecisionPlan, split: Parallelism = ALONE, *, eager: bool) -> int:
    """Bytes of one decoder layer's cache on one chip when the task ends.

    Per token 2 * kv_heads * head_dim values, of which a chip has its heads, at least one; latent attention keeps
    kv_lora_rank + qk_rope_head_dim (DeepSeek-V2, 2024), on every chip; a sliding window keeps no more than its width,
    a policy no more than it says;
    an encoder-decoder also keeps the keys and values of its cross-attention.  Chips that share a sequence's tokens
    keep those of their own.
    """
    values = 2 * max(1, model.kv_heads // split.tensor) * model.head_dim
    if model.latent_attention:
        values = model.kv_lora_rank + model.qk_rope_head_dim
    window = model.sliding_window if not eager else 0
    policy = task.kv if isinstance(task, (Inference, Step)) else None
    tokens = 0
    for sequences, length in _lengths(model, task):
        length = policy.held(length) if policy is not None else length
        near = min(length, window) if window else length
        if model.local_layers:  # of the mean layer
            near = -(
                -(len(model.local_layers) * near + (model.layers - len(model.local_layers)) * length) // model.layers
            )
        tokens += sequences // split.data * -(-near // split.context)
    return packed_B(tokens * values, plan.kv_cache, model.head_dim)


def _lengths(model: Model, task: Task) -> list[tuple[int, int]]:
    """[(sequences, tokens in the cache of each)] at the end of the task."""
    if isinstance(task, Step):
        return [(group.sequences, group.past + group.new) for group in task.groups]
    if not isinstance(task, Inference):
        return []
    if model.kind == "encoder-decoder":
        return [(task.batch, 1 + task.decode + task.sequence)]
    return [(task.batch, task.sequence + task.decode)]


def peak_B(
    operators: Sequence[Operator],
    together: Sequence[int],
    *,
    kept: frozenset[str] = frozenset(),
    hidden: frozenset[str] = frozenset(),
) -> int:
    """The largest number of bytes of activations and their gradients alive at one operator of a layer.

    Neighbours with one number `together` (not 0) run at once.  `kept` tensors are counted elsewhere, `hidden` ones
    never lie in memory whole.
    """
    skipped = kept | hidden
    spans: dict[str, tuple[int, int, int]] = {}  # first and last operator, bytes
    index, before = -1, 0
    for operator, group in zip(operators, together, strict=True):
        index, before = index + (not group or group != before), group
        for operand in (*operator.inputs, *operator.outputs):
            role = operand.role
            if role is not Role.ACTIVATION and (role is not Role.GRADIENT or operand.trainable):
                continue
            name = operand.name
            if name in skipped:
                continue
            first, _, size = spans.get(name, (index, index, 0))
            spans[name] = (first, index, max(size, operand.size_B * operator.count))
    change = [0] * (index + 2)
    for first, last, size in spans.values():
        change[first] += size
        change[last + 1] -= size
    total = peak = 0
    for size in change:
        total += size
        peak = max(peak, total)
    return peak
