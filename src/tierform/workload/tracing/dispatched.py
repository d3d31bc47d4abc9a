"""The kernels that PyTorch itself issues for a training step, forward and backward, one by one: nothing is executed.

A processor runs what is dispatched to it.  A normalization that a module writes out in six operations is six kernels
there, and ten in the backward pass; a view computes nothing, yet the host has work with it.  The module, its loss and
a batch are made of tensors without values, and every call that reaches a kernel is recorded, those of autograd among
them.  Products keep their sizes; attention in one call is its products and its softmax; of everything else the tensors
count that are read and written.  The update and what stands in memory are those of the traced step
(:mod:`tierform.workload.tracing.module`).

Limits: control flow that depends on values cannot be recorded.  Calls of a user's own kernels count as light ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tierform.errors import fail
from tierform.workload.graph import Block, StageKind, Workload
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role
from tierform.workload.task import resolved_precision

Shape = tuple[int, ...]

# By the names of ATen's kernels, which are its interface; every other one reads and writes its tensors.
_SOFTMAX = {"_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data"}
_NORMALIZATION = {
    "native_layer_norm",
    "native_layer_norm_backward",
    "native_group_norm",
    "native_group_norm_backward",
    "native_batch_norm",
    "native_batch_norm_backward",
    "_fused_rms_norm",
    "_fused_rms_norm_backward",
}
_FUNCTIONS = {"gelu", "silu", "tanh", "sigmoid", "exp", "log", "sin", "cos", "erf", "mish", "softplus", "elu"}
_ACTIVATION = _FUNCTIONS | {f"{name}_backward" for name in _FUNCTIONS} - {"tanh_backward", "sigmoid_backward"}
_RANDOM = {"bernoulli", "rand_like", "uniform", "normal"}
_NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "_unsafe_view"}
_ATTENTION = "_scaled_dot_product"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that reached a kernel or made a view: ATen's name, what it reads and writes, whether of the backward.

    Elements of a tensor are those that lie in memory; `weights` tells which inputs are parameters.
    """

    name: str
    backward: bool
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    read: tuple[int, ...]
    written: tuple[int, ...]
    weights: tuple[bool, ...]
    view: bool
    wanted: tuple[bool, ...] = ()

    @property
    def issued_only(self) -> bool:
        """Whether nothing is computed: the host alone has work with it."""
        return self.view or self.name in _NO_KERNEL or not any(self.written)


class _Recorder(TorchDispatchMode):
    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.backward = False
        self._weights = weights

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> object:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "prim":  # questions about a tensor
            return out
        inputs, outputs = _tensors((args, kwargs)), _tensors(out)
        self.calls.append(
            Call(
                name=str(func.overloadpacket.__name__).rstrip("_"),
                backward=self.backward,
                inputs=tuple(tuple(one.shape) for one in inputs),
                outputs=tuple(tuple(one.shape) for one in outputs),
                read=tuple(_elements(one) for one in inputs),
                written=tuple(_elements(one) for one in outputs),
                weights=tuple(one.untyped_storage()._cdata in self._weights for one in inputs),
                view=bool(func.is_view),
                wanted=tuple(bool(one) for one in args[-1]) if _is_mask(args) else (),
            )
        )
        return out


def _is_mask(args: Sequence[object]) -> bool:
    """Whether the last argument says which gradients are wanted."""
    last = args[-1] if args else None
    return isinstance(last, (list, tuple)) and bool(last) and all(isinstance(one, bool) for one in last)


def _tensors(found: object) -> list[Tensor]:
    return [one for one in tree_flatten(found)[0] if isinstance(one, Tensor)]


def _elements(tensor: Tensor) -> int:
    """Elements that lie in memory: what is repeated by a stride of zero counts once."""
    return prod(int(n) for n, step in zip(tensor.shape, tensor.stride(), strict=True) if step or n == 0)


def record(module: nn.Module, inputs: Sequence[Tensor]) -> list[Call]:
    """The calls of one forward and backward pass of a module that returns its loss; TierformError when it cannot be."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    hollow = _hollow(module, mode)
    learned = [one for one in hollow.values() if isinstance(one, nn.Parameter)]
    recorder = _Recorder({one.untyped_storage()._cdata for one in learned})
    try:
        with mode, recorder:
            loss = torch.func.functional_call(module, hollow, tuple(mode.from_tensor(one) for one in inputs))
            recorder.backward = True
            loss.backward()
    except Exception as error:
        reason = str(error).strip().splitlines()
        fail(
            f"the step's kernels cannot be recorded: {type(error).__name__}: {reason[0] if reason else ''}"[:400],
            value=type(module).__name__,
            fix="Control flow must not depend on tensor values.",
        )
    return recorder.calls


def _hollow(module: nn.Module, mode: FakeTensorMode) -> dict[str, Tensor]:
    """The module's parameters and buffers without values, by name; tied ones are one."""
    made: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    named = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    for name, tensor in (pair for pairs in named for pair in pairs):
        if id(tensor) not in made:
            fake = mode.from_tensor(tensor.detach())
            made[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake
        found[name] = made[id(tensor)]
    return found


def as_dispatched(workload: Workload, module: nn.Module, inputs: Sequence[Tensor]) -> Workload:
    """The traced step of a module that returns its loss, its forward and backward made of the calls that are recorded.

    The operators stand in one block a pass, one after the other.
    """
    calls = record(module, inputs)
    stages = []
    for stage in workload.stages:
        if stage.kind not in (StageKind.FORWARD, StageKind.BACKWARD):
            stages.append(stage)
            continue
        own = [call for call in calls if call.backward == (stage.kind is StageKind.BACKWARD)]
        block = Block("step", 1, tuple(_operators(own, workload)), BlockKind.LAYER)
        stages.append(replace(stage, waves=(replace(stage.waves[0], blocks=(block,)),)))
    return replace(workload, stages=tuple(stages))


def _operators(calls: Sequence[Call], workload: Workload) -> list[Operator]:
    form = resolved_precision(workload.task).activations
    found: list[Operator] = []
    for call in calls:
        if not call.issued_only:
            found += _of_call(call, len(found), form)
    phase = Phase.BACKWARD if calls and calls[0].backward else Phase.FORWARD
    views = sum(call.issued_only for call in calls)
    if views:
        found.append(Operator(f"{len(found)}.views", Kind.ELEMENTWISE, "other", phase, (), (), count=views))
    chained = [replace(one, after=(before.name,)) for before, one in pairwise(found)]
    return [*found[:1], *chained]


def _of_call(call: Call, place: int, form: str) -> list[Operator]:
    products = _products(call)
    phase = Phase.BACKWARD if call.backward else Phase.FORWARD
    if products:
        made = []
        for index, (groups, m, n, k, weight) in enumerate(products):
            role = Role.WEIGHT if weight else Role.ACTIVATION
            factors = (
                Operand("a", (groups, m, k), form, Role.ACTIVATION),
                Operand("b", (groups, n, k), form, role, trainable=weight),
            )
            result = (Operand("y", (groups, m, n), form, Role.ACTIVATION),)
            name = f"{place + index}.{call.name}"
            made.append(Operator(name, Kind.MATMUL, "other", phase, factors, result, batch=groups, m=m, n=n, k=k))
        if call.name.startswith(_ATTENTION):
            batch, m, keys = products[0][:3]
            scores = Operand("scores", (batch, m, keys), form, Role.ACTIVATION)
            name = f"{place + len(made)}.{call.name}"
            made.append(Operator(name, Kind.SOFTMAX, "other", phase, (scores,), (scores,)))
        return made
    random = call.name in _RANDOM
    kind = Kind.ELEMENTWISE
    for known, names in (
        (Kind.SOFTMAX, _SOFTMAX),
        (Kind.NORMALIZATION, _NORMALIZATION),
        (Kind.ACTIVATION, _ACTIVATION),
        (Kind.EMBEDDING, {"embedding"}),
    ):
        if call.name in names:
            kind = known
    inputs: tuple[Operand, ...] = () if random else _operands("x", call.read, form)
    outputs = _operands("y", call.written, "int8" if random else form)
    if kind is Kind.EMBEDDING:  # rows of a table: as many as come out
        inputs = outputs
    return [Operator(f"{place}.{call.name}", kind, "other", phase, inputs, outputs)]


def _operands(name: str, sizes: Sequence[int], form: str) -> tuple[Operand, ...]:
    return tuple(Operand(f"{name}{place}", (size,), form, Role.ACTIVATION) for place, size in enumerate(sizes) if size)


def _products(call: Call) -> list[tuple[int, int, int, int, bool]]:
    """(batch, m, n, k, whether with a weight) of the products that a call hides."""
    shapes, weights = call.inputs, call.weights
    if call.name in ("mm", "addmm", "bmm", "baddbmm"):
        at = len(shapes) - 2
        first, n = shapes[at], shapes[at + 1][-1]
        return [(prod(first[:-2]), first[-2], n, first[-1], weights[at + 1] or weights[at])]
    if call.name == "convolution":
        out = call.outputs[0]
        return [(1, prod(out) // out[1], shapes[1][0], prod(shapes[1][1:]), True)]
    if call.name == "convolution_backward":
        gradient, kernel = shapes[0], shapes[2]
        rows, n, k = prod(gradient) // gradient[1], kernel[0], prod(kernel[1:])
        of_input, of_weight = (1, rows, k, n, True), (1, n, k, rows, False)
        return [one for one, wanted in zip((of_input, of_weight), call.wanted, strict=False) if wanted]
    if call.name.startswith(_ATTENTION):
        backward = call.name.endswith("_backward")
        queries, keys, values = shapes[1:4] if backward else shapes[:3]
        batch, m, d = prod(queries[:-2]), queries[-2], queries[-1]
        n, width = keys[-2], values[-1]
        scores, context = (batch, m, n, d, False), (batch, m, width, n, False)
        if not backward:
            return [scores, context]
        gradients = ((m, n, width), (n, width, m), (m, d, n), (n, d, m))  # of weights, values, queries, keys
        return [scores, *((batch, *sizes, False) for sizes in gradients)]
    return []
