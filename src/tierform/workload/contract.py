"""What every workload must satisfy, whoever wrote the family: checks for tests, ours and a plug-in's.

:func:`check_workload` holds one workload against the rules of the graph; :func:`check_family` expands a configuration
for inference and every fine-tuning method and checks each.  Both raise AssertionError and say where.
"""

from __future__ import annotations

from typing import Any

from tierform.errors import TierformError
from tierform.workload.expand import expand
from tierform.workload.graph import Block, Workload
from tierform.workload.models import model_from_config
from tierform.workload.operator import Kind
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


def check_family(config: dict[str, Any], *, batch: int = 2, sequence: int = 16) -> None:
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


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
