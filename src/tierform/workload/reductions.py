"""What chips exchange beside the update: gradients that are added up before it, weights that are gathered after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tierform.workload.graph import Block, Weight
from tierform.workload.memory import BlockKind, BlockMemory, even_cut
from tierform.workload.operator import Phase
from tierform.workload.ops.optimizer import gradient_reduction
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.sharding import gathers_of, kept_numbers


def reduction_blocks(
    weights: Sequence[Weight], memory: Sequence[BlockMemory], plan: PrecisionPlan, split: Parallelism
) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """What comes before and after the update.

    Before: all-reduces of partial sums over the tensor group, of gradients over the copies, of those of a tied weight
    over the pipeline groups that hold it.  Where states are sharded, gradients are scattered instead (those that are
    sharded themselves were, in the backward pass) and weights are gathered after the update.  Sizes are those of the
    pipeline group with most of them when layers are shared evenly.
    """
    groups: list[Counter[str]] = [Counter() for _ in range(split.pipeline)]
    for number, part in enumerate(even_cut(memory, split.parts)):
        groups[number % split.pipeline].update(dict(part))
    learned = [w for w in weights if w.trainable and w.spread == 1]
    spread = [w for w in weights if w.trainable and w.spread > 1]

    def largest(chosen: list[Weight], copies: int) -> int:
        """Numbers of which each of so many copies keeps a part."""
        return max(sum(kept_numbers(w, copies) * group[w.block] for w in chosen) for group in groups)

    before, after = [], []
    partial = largest([w for w in learned if w.partial], split.copies if split.zero > 1 else 1)
    form = plan.weight_gradients
    if partial:
        made = gradient_reduction("gradients.partial", partial, form, split.tensor, copies=False)
        before.append(Block("gradients", 1, (made,), BlockKind.GRADIENTS))
    if learned and split.copies > 1 and split.zero < 2 and not split.overlap:
        number = largest(learned, split.copies) * split.copies if split.zero else largest(learned, 1)
        made = gradient_reduction("gradients", number, form, split.copies, copies=True, scattered=split.zero == 1)
        name = "gradients.copies" if before else "gradients"
        before.append(Block(name, 1, (made,), BlockKind.GRADIENTS))
    tied = _tied(weights, memory, split)
    for w, number in tied:
        kept = kept_numbers(w, split.copies if split.zero > 1 else 1)
        made = gradient_reduction(f"gradients.{w.name}", kept, form, number, copies=False, weight=w.name)
        before.append(Block(f"gradients.{w.name}", 1, (made,), BlockKind.GRADIENTS))
    if spread and split.copies > spread[0].spread:  # each expert stands on some of the copies
        made = gradient_reduction(
            "gradients.experts", largest(spread, 1), form, split.copies // spread[0].spread, copies=True
        )
        before.append(Block("gradients.experts" if before else "gradients", 1, (made,), BlockKind.GRADIENTS))
    if split.zero in (1, 2):
        most = max(groups, key=lambda group: sum(kept_numbers(w, split.copies) * group[w.block] for w in learned))
        own = [replace(w, groups=w.groups * most[w.block]) for w in learned if most[w.block]]
        after.append(Block("weights", 1, gathers_of(own, split.copies, Phase.UPDATE), BlockKind.GRADIENTS))
    return tuple(before), tuple(after)


def _tied(weights: Sequence[Weight], memory: Sequence[BlockMemory], split: Parallelism) -> list[tuple[Weight, int]]:
    """[(a weight that learns in several pipeline groups, how many)]."""
    holders: dict[str, set[int]] = {}
    known = {block.block: block for block in memory}
    for number, part in enumerate(even_cut(memory, split.parts)):
        for name, _ in part:
            for item in known[name].borrowed:
                holders.setdefault(item.weight, set()).add(number % split.pipeline)
            for w in weights:
                if w.block == name:
                    holders.setdefault(w.name, set()).add(number % split.pipeline)
    shared = {item.weight for block in memory for item in block.borrowed}
    return [(w, len(holders[w.name])) for w in weights if w.trainable and w.name in shared and len(holders[w.name]) > 1]
