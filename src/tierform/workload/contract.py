"""What every workload must satisfy, whoever wrote the family: checks for tests, ours and a plug-in's.

:func:`check_workload` holds one workload against the rules of the graph; :func:`check_family` expands a configuration
for inference and every fine-tuning method and checks each.  Both raise AssertionError and say where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tierform.errors import TierformError
from tierform.workload.expand import expand
from tierform.workload.graph import Block, Stage, Workload
from tierform.workload.models import model_from_config
from tierform.workload.operator import Kind, Operand, Operator
from tierform.workload.task import Adapters, BitFit, FineTuning, Full, Inference, LastLayers, LoRA, Method, QLoRA


def check_workload(workload: Workload) -> None:
    """Names are unique, dependencies point backwards, weights are declared, sizes are positive, totals agree."""
    weights = {weight.name for weight in workload.weights}
    for stage in workload.stages:
        names = [block.name for block in stage.blocks]
        _demand(len(set(names)) == len(names), f"{stage.name}: two blocks of one name in {names}")
        for block in stage.blocks:
            _check_block(f"{stage.name}/{block.name}", block, weights)
    trained = sum(weight.whole_total for weight in workload.weights if weight.trainable)
    _demand(trained == workload.trainable_parameters, "the trainable weights do not sum to trainable_parameters")
    total = sum(weight.whole_total for weight in workload.weights)
    _demand(total == workload.parameters, "the weights do not sum to parameters")


def _check_block(place: str, block: Block, weights: set[str]) -> None:
    _demand(block.count >= 1 and bool(block.operators), f"{place}: an empty block")
    seen: set[str] = set()
    for operator in block.operators:
        at = f"{place}/{operator.name}"
        _demand(operator.name not in seen, f"{at}: the name is taken")
        _demand(set(operator.after) <= seen, f"{at}: waits for {set(operator.after) - seen}, which comes later")
        seen.add(operator.name)
        _demand(operator.weight is None or operator.weight in weights, f"{at}: unknown weight {operator.weight}")
        sizes = (operator.batch, operator.m, operator.n, operator.k, operator.count)
        if operator.kind is Kind.MATMUL:
            _demand(min(sizes) >= 1, f"{at}: a size below 1 in {sizes}")
            _demand(operator.outputs[0].elements >= operator.m * operator.n, f"{at}: the result is too small")
        else:
            _demand(operator.macs == 0, f"{at}: multiply-accumulates outside a matmul")
        for operand in (*operator.inputs, *operator.outputs):
            _demand(all(size >= 1 for size in operand.shape), f"{at}: {operand.name} has an empty shape")


def check_family(config: dict[str, object], *, batch: int = 2, sequence: int = 16) -> None:
    """Every task that the configuration's model can do, checked; backward is twice forward in full training."""
    model = model_from_config(config)
    check_workload(expand(model, Inference(batch=batch, sequence=sequence, decode=5 if model.generative else 0)))
    methods: tuple[Method, ...] = (Full(), LoRA(4), QLoRA(4), Adapters(8), BitFit(), LastLayers(1))
    for method in methods:
        for recomputation in ("none", "selective", "full"):
            task = FineTuning(method, batch=batch, sequence=sequence, recomputation=recomputation)
            try:
                workload = expand(model, task)
            except TierformError:
                _demand(isinstance(method, BitFit), f"{type(method).__name__} cannot be expanded")
                continue
            check_workload(workload)
            if isinstance(method, Full):
                _demand(workload.trainable_parameters == model.parameters, "full fine-tuning leaves weights frozen")


def renamed(workload: Workload, rename: Callable[[str], str]) -> Workload:
    """The same workload under other names: of stages, blocks, operators, operands and weights.

    Nothing that is computed from a workload may depend on its names; `rename` must keep different names different.
    """

    def operand(item: Operand) -> Operand:
        return replace(item, name=rename(item.name))

    def operator(item: Operator) -> Operator:
        return replace(
            item,
            name=rename(item.name),
            inputs=tuple(map(operand, item.inputs)),
            outputs=tuple(map(operand, item.outputs)),
            after=tuple(map(rename, item.after)),
            weight=None if item.weight is None else rename(item.weight),
        )

    def block(item: Block) -> Block:
        return replace(item, name=rename(item.name), operators=tuple(map(operator, item.operators)))

    def stage(item: Stage) -> Stage:
        waves = tuple(replace(wave, blocks=tuple(map(block, wave.blocks))) for wave in item.waves)
        return replace(item, name=rename(item.name), waves=waves)

    return replace(
        workload,
        stages=tuple(map(stage, workload.stages)),
        weights=tuple(replace(w, name=rename(w.name), block=rename(w.block)) for w in workload.weights),
        memory=tuple(replace(item, block=rename(item.block)) for item in workload.memory),
    )


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
