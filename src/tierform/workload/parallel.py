"""Several chips at one task: what each of them computes, and what they must tell each other.

- Tensor parallelism over t chips (Shoeybi et al., Megatron-LM, 2019): query, key, value, gate, up and head matrices are
  cut by output features, attention by heads, output and down matrices by input features.  Partial sums are added by
  an all-reduce of batch * sequence * width activations after attention and after the FFN in the forward pass, and of
  their input gradients in the backward pass.  Normalization, residuals, routers and low-rank inputs are repeated on
  every chip.
- Pipeline parallelism over p groups: each has a consecutive part of the layers and sends its results on.
- Data parallelism over d copies: each has a part of the batch; gradients are all-reduced before the update.

:func:`share_of_one` gives the operators of one chip of one copy, collectives included as operators.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tierform.errors import Problem, TierformError
from tierform.workload.graph import Block, BlockKind, Footprint, Stage, StageKind, Wave, Workload
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role
from tierform.workload.precision import bits

_BY_OUTPUT = ("q", "k", "v", "gate", "up", "k_b", "v_b", "q_b", "logits")
_BY_INPUT = ("o", "down")
_REPEATED = ("residual", "output_dropout", "gradient_add", "routing", "dispatch", "combine", "router", "shared_add")


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How many chips share each layer, the run of layers, and the batch."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    def __post_init__(self) -> None:
        problems = [
            Problem("must be a whole number of at least 1", key=name, value=getattr(self, name))
            for name in self.__slots__
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1
        ]
        if problems:
            raise TierformError(problems)

    @property
    def chips(self) -> int:
        """Chips in all."""
        return self.tensor * self.pipeline * self.data


def share_of_one(workload: Workload, split: Parallelism) -> Workload:
    """One chip's part of the workload of one copy (the batch is already that of the copy).

    Parameters and footprint are one chip's; `data` adds the all-reduce of gradients to the update.  Blocks are kept
    whole: which layers a pipeline group has is decided by the schedule.  TierformError when heads or widths do not
    divide.
    """
    stages = workload.stages
    if split.tensor > 1:
        _check_divisible(workload, split.tensor)
        stages = tuple(_tensor_stage(stage, split.tensor) for stage in stages)
    if split.data > 1:
        update = StageKind.UPDATE
        stages = tuple(_with_gradient_reduction(s, workload, split) if s.kind is update else s for s in stages)
    held = split.tensor * split.pipeline
    return replace(workload, stages=stages, footprint=_footprint(workload, split, held))


def _footprint(workload: Workload, split: Parallelism, held: int) -> Footprint:
    parts = workload.footprint.parts()
    for name in ("weights", "adapters", "gradients", "optimizer_states", "master_weights", "kv_cache"):
        parts[name] = -(-parts[name] // held)
    # One forward, one backward: the first group keeps the activations of `pipeline` micro-batches of its layers.
    micro_batches = workload.stages[0].micro_batches
    in_flight = min(split.pipeline, micro_batches) / micro_batches
    parts["activations"] = round(parts["activations"] / held * in_flight)
    return Footprint(**parts)


def _check_divisible(workload: Workload, tensor: int) -> None:
    problems: dict[str, Problem] = {}
    for _, block, operator, _ in workload.occurrences():
        size = _split_dimension(operator)
        if size is not None and size % tensor:
            problems.setdefault(
                operator.name,
                Problem(
                    f"{size} does not divide among {tensor} chips",
                    key=f"{block.name}/{operator.name}",
                    fix="Choose a tensor parallelism that divides heads and widths.",
                ),
            )
    if problems:
        raise TierformError(list(problems.values())[:8])


def _weight_kind(operator: Operator) -> str:
    """How the operator's matrix is cut: by ``output``, by ``input``, or not at all (empty)."""
    name = operator.name.removesuffix(".grad_input").removesuffix(".grad_weight").removesuffix(".update")
    parts = name.split(".")
    if "lora_b" in parts and parts[-2] in _BY_OUTPUT:
        return "output"
    if "lora_a" in parts:
        return "input" if parts[-2] in _BY_INPUT else ""
    if parts[-1] == "bias":
        return "output" if len(parts) > 1 and parts[-2] in _BY_OUTPUT else ""
    if parts[-1] in _BY_OUTPUT or name == "embedding.word":
        return "output"
    return "input" if parts[-1] in _BY_INPUT else ""


def _is_attention_product(operator: Operator) -> bool:
    return operator.kind is Kind.MATMUL and operator.weight is None


def _split_dimension(operator: Operator) -> int | None:
    """The dimension that tensor parallelism cuts; None when the operator is repeated or cut element by element."""
    if operator.kind is not Kind.MATMUL or operator.part == "head":
        return None
    if _is_attention_product(operator):
        return operator.batch
    return {"output": operator.n, "input": operator.k}.get(_weight_kind(operator)) if _forward(operator) else None


def _forward(operator: Operator) -> bool:
    return operator.phase is Phase.FORWARD


def _part(operand: Operand, tensor: int) -> Operand:
    return replace(operand, shape=(-(-operand.elements // tensor),))


def _tensor_stage(stage: Stage, tensor: int) -> Stage:
    waves = (replace(w, blocks=tuple(_tensor_block(block, tensor) for block in w.blocks)) for w in stage.waves)
    return replace(stage, waves=tuple(waves))


def _tensor_block(block: Block, tensor: int) -> Block:
    operators: list[Operator] = []
    renamed: dict[str, str] = {}
    reduced = _reduced(block)
    for operator in block.operators:
        made = _tensor_operator(operator, tensor)
        made = replace(made, after=tuple(renamed.get(name, name) for name in made.after))
        operators.append(made)
        if operator.name in reduced:
            reduction = _collective(f"{operator.name}.all_reduce", "all_reduce", operator, operator.outputs[0], tensor)
            operators.append(reduction)
            renamed[operator.name] = reduction.name
    return replace(block, operators=tuple(operators))


def _reduced(block: Block) -> set[str]:
    """Names of the operators whose results are partial sums, once for each sum.

    Forward: the output and the down projection (of experts: what their combination makes).  Backward: input gradients
    of query, key and value are added before one reduction, so are those of gate and up; one of each group carries it.
    """
    names = [operator.name for operator in block.operators]
    combined = "ffn.combine" in names
    found = {name for name in names if name.endswith(".o") or (name.endswith(".down") and not combined)}
    found |= {"ffn.combine"} if combined else set()
    found |= {name for name in names if name.endswith("attention.q.grad_input")}
    if "ffn.dispatch.grad_input" in names:
        return found | {"ffn.dispatch.grad_input"}
    last = next((name for name in reversed(names) if name.endswith((".gate.grad_input", ".up.grad_input"))), None)
    return found | ({last} if last else set())


def _collective(name: str, kind: str, source: Operator, moved: Operand, participants: int) -> Operator:
    return Operator(
        name,
        Kind.COLLECTIVE,
        "other",
        source.phase,
        (moved,),
        (moved,),
        operations_per_element=0.0,
        after=(source.name,),
        participants=participants,
        collective=kind,
    )


def _tensor_operator(operator: Operator, tensor: int) -> Operator:
    if operator.kind is Kind.OPTIMIZER:
        cut = _weight_kind(operator) != ""
        return _all_parts(operator, tensor) if cut else operator
    if operator.kind is not Kind.MATMUL:
        inside = operator.part in ("attention", "ffn", "adapter") and operator.kind is not Kind.NORMALIZATION
        repeated = any(word in operator.name for word in _REPEATED)
        return _all_parts(operator, tensor) if inside and not repeated else operator
    if _is_attention_product(operator):
        return replace(_all_parts(operator, tensor), batch=operator.batch // tensor)
    kind = _weight_kind(operator)
    if not kind:
        return operator
    by_output = kind == "output"
    if operator.name.endswith(".grad_weight"):  # (outputs, inputs) of tokens: gradient first, then the activation
        spared, axis, partial_sums = (1, "m", False) if by_output else (0, "n", False)
    elif operator.transposed:
        spared, axis, partial_sums = (-1, "k", True) if by_output else (0, "n", False)
    else:
        spared, axis, partial_sums = (0, "n", False) if by_output else (-1, "k", True)
    sizes: dict[str, Any] = {axis: -(-getattr(operator, axis) // tensor)}
    return replace(
        operator,
        inputs=tuple(o if index == spared else _part(o, tensor) for index, o in enumerate(operator.inputs)),
        outputs=operator.outputs if partial_sums else tuple(_part(o, tensor) for o in operator.outputs),
        **sizes,
    )


def _all_parts(operator: Operator, tensor: int) -> Operator:
    return replace(
        operator,
        inputs=tuple(_part(operand, tensor) for operand in operator.inputs),
        outputs=tuple(_part(operand, tensor) for operand in operator.outputs),
    )


def _with_gradient_reduction(stage: Stage, workload: Workload, split: Parallelism) -> Stage:
    """The update begins with an all-reduce of this chip's gradients over the copies."""
    held = split.tensor * split.pipeline
    size_B = -(-workload.footprint.gradients // held)
    precision = workload.task.precision.gradients
    gradients = Operand("gradients", (size_B * 8 // bits(precision),), precision, Role.GRADIENT)
    reduction = Operator(
        "gradients.all_reduce",
        Kind.COLLECTIVE,
        "optimizer",
        Phase.UPDATE,
        (gradients,),
        (gradients,),
        operations_per_element=0.0,
        participants=split.data,
        collective="all_reduce",
    )
    blocks = (Block("gradients", 1, (reduction,), BlockKind.GRADIENTS), *stage.blocks)
    return replace(stage, waves=(Wave(blocks),))
