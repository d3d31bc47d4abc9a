"""From ATen nodes of an exported program to operators on a tape.

Views cost nothing; matmuls in all their spellings (linear, addmm, bmm, einsum, convolution, scaled dot-product
attention, grouped products) become matmul operators; softmax, normalization, activations and embeddings become theirs;
every other node with a floating-point result counts one operation per value.  A normalization that is written
out in simple operations is recognized by its module's class name (``...Norm``).  Operators that hide products and are
not in the table are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

from tierform.errors import fail
from tierform.workload.operator import Kind, Operand, Role
from tierform.workload.ops import activation, dropout, embedding, normalization, part, softmax
from tierform.workload.ops.elementwise import parameter_gradient, pass_on
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Value
from tierform.workload.tracing.products import Products
from tierform.workload.tracing.reader import VIEWS, is_floating, kind_of, label_of, shape_of, shapes_of, tensors_of

if TYPE_CHECKING:
    from torch.fx import Node

    from tierform.workload.tracing.module import TracedRun

PARTS = {"slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "unsafe_chunk"}
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "tanh": "tanh", "sigmoid": "sigmoid"}
REFUSED = ("lstm", "gru", "rnn_", "conv_transpose", "bilinear", "cdist", "fft_", "scaled_mm", "svd", "solve", "inverse")


class Translation(Products):
    """One exported program being turned into operators, node by node."""

    # -- translating --------------------------------------------------------------------------------------------
    def translate(self, node: Node, run: TracedRun) -> None:
        """Record one node on the run's tape."""
        kind, path = kind_of(node), self._relative(self.path(node), run)
        if node.name in self._fold:
            self._norm_by_class(node, run, path)
            return
        if any(kind.startswith(word) or f"_{word}" in kind for word in REFUSED):
            fail(
                "an operator that cannot be counted is used",
                value=str(node.target),
                key=path or "module",
                fix="Replace it by matmuls, convolutions and elementwise operations.",
            )
        handler: Callable[[Node, TracedRun, str], None] | None = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(node, run, path)
        elif kind in VIEWS:
            self._view(node, run)
        elif kind in PARTS:
            self._part(node, run, path)
        elif kind in ACTIVATIONS:
            self._activation(node, run, path)
        else:
            self._elementwise(node, run, path)

    def _view(self, node: Any, run: TracedRun) -> None:
        source: Any = node.args[0] if node.args else None
        if not hasattr(source, "name"):
            return
        held = self.values.get(source.name)
        if isinstance(held, list):
            index = node.args[1] if len(node.args) > 1 else 0
            if index < len(held) and isinstance(held[index], Value):
                self.values[node.name] = held[index]
                self.homes[node.name] = self.homes[source.name]
                self._mark_output(node)
            return
        value = self.value(source, run)
        if value is not None:
            self.values[node.name] = self.values[source.name]
            if source.name in self.homes:
                self.homes[node.name] = self.homes[source.name]
            self._mark_output(node)

    def _mark_output(self, node: Node) -> None:
        home = self.homes.get(node.name)
        if node.name in self.outputs and home is not None:
            home.leaving[node.name] = self.values[node.name]

    def _part(self, node: Node, run: TracedRun, path: str) -> None:
        value = self.value(node.args[0], run)
        if value is None:
            return
        label = run.tape.unique(label_of(path, kind_of(node)))
        shapes = shapes_of(node)
        if len(shapes) == 1 and not isinstance(node.meta["val"], (list, tuple)):
            same = prod(shapes[0]) == value.elements
            self.keep(node, run, value if same else part(run.tape, value, label, shapes[0]))
            return
        self.keep(node, run, [part(run.tape, value, f"{label}.{i}", shape) for i, shape in enumerate(shapes)])

    def _activation(self, node: Node, run: TracedRun, path: str) -> None:
        value = self.value(node.args[0], run)
        if value is None:
            return
        name = ACTIVATIONS[kind_of(node)]
        if name == "gelu" and node.kwargs.get("approximate") == "tanh":
            name = "gelu_tanh"
        self.keep(node, run, activation(run.tape, value, label_of(path, name), name, self._module(path, run)))

    def _elementwise(self, node: Node, run: TracedRun, path: str) -> None:
        """One operation per value of the result; parameters among the operands learn."""
        if not is_floating(node):
            return
        inputs, weights, others = [], [], []
        for argument in tensors_of(node):
            value = self.value(argument, run)
            weight = None if value is not None else self.parameter(argument, run, path, matrix=False)
            if value is not None:
                inputs.append(value)
            elif weight is not None:
                weights.append(weight)
            elif is_floating(argument):
                others.append(Operand("constant", shape_of(argument), self.plan.activations, Role.INDEX, static=True))
        if not inputs and not weights:
            return
        kind, tape, sources = kind_of(node), run.tape, tuple(inputs)
        label, module = label_of(path, kind), self._module(path, run)
        y = tape.value(f"{label}.{len(tape.operators)}.out", shape_of(node))
        products = kind in ("mul", "div", "pow", "where", "masked_fill")
        saved = tuple(v for v in sources if v.grad) if products else ()

        def backward(reverse: Reverse, gradient: Value) -> None:
            if kind in ("add", "sub", "cat") and not weights:
                pass_on(reverse, sources, gradient)
                return
            for source in sources:
                reverse.unary(f"{label}.grad_input", source, saved, gradient, 1.0)
            for weight in weights:
                if weight.trainable:
                    repeats = max(1.0, gradient.elements / weight.elements)
                    parameter_gradient(reverse, weight, (gradient,), repeats)

        self.keep(
            node,
            run,
            tape.emit(
                label,
                Kind.ELEMENTWISE,
                module,
                sources,
                y,
                weights=tuple(weights),
                indices=tuple(others),
                saved=saved,
                backward=backward,
            ),
        )

    # -- the other named kinds ----------------------------------------------------------------------------------
    def _on_softmax(self, node: Node, run: TracedRun, path: str) -> None:
        value = self.value(node.args[0], run)
        if value is not None:
            self.keep(node, run, softmax(run.tape, value, label_of(path, "softmax"), self._module(path, run)))

    _on__softmax = _on_softmax

    def _normalize(self, node: Node, run: TracedRun, path: str, kind: str, x: object, parameters: list[object]) -> None:
        value = self.value(x, run)
        if value is None:
            return
        label = path or kind
        used = [p for p in parameters if p is not None and hasattr(p, "name")]
        for parameter, which, shift in zip(used, ("weight", "bias"), (False, True), strict=False):
            self.parameter(parameter, run, path, matrix=False, bias=shift, name=f"{label}.{which}")
        width = prod(shape_of(used[0])) if used else shape_of(node)[-1]
        self.keep(
            node, run, normalization(run.tape, value, label, kind, gain=bool(used), bias=len(used) > 1, size=width)
        )

    def _on_layer_norm(self, node: Node, run: TracedRun, path: str) -> None:
        self._normalize(node, run, path, "layernorm", node.args[0], list(node.args[2:4]))

    def _on_rms_norm(self, node: Node, run: TracedRun, path: str) -> None:
        self._normalize(node, run, path, "rmsnorm", node.args[0], list(node.args[2:3]))

    def _norm_by_class(self, node: Node, run: TracedRun, path: str) -> None:
        group = self._fold[node.name]
        if node is not group[-1]:
            if kind_of(node) in VIEWS:  # a conversion that changes nothing may stand for the tensor afterwards
                self._view(node, run)
            return
        inside = {item.name for item in group}
        outer = [a for item in group for a in tensors_of(item) if a.name not in inside]
        source = next((a for a in outer if isinstance(self.values.get(a.name), Value)), None)
        parameters = list(dict.fromkeys(a for a in outer if a.name in self.parameters))
        if source is not None:
            kinds = {kind_of(item) for item in group}
            kind = "layernorm" if "sub" in kinds or len(parameters) > 1 else "rmsnorm"
            self._normalize(node, run, path, kind, source, parameters)

    def _on_embedding(self, node: Node, run: TracedRun, path: str) -> None:
        weight = self.parameter(node.args[0], run, path, matrix=True)
        if weight is None:
            self._elementwise(node, run, path)
            return
        rows, width = weight.shape
        self.keep(node, run, embedding(run.tape, weight.name, rows, width, shape_of(node)[:-1]))

    def _on_dropout(self, node: Any, run: TracedRun, path: str) -> None:
        value = self.value(node.args[0], run)
        if value is None:
            return
        active = self.training and len(node.args) > 2 and bool(node.args[2])
        probability = float(node.args[1]) if active else 0.0
        self.keep(node, run, dropout(run.tape, value, label_of(path, "dropout"), self._module(path, run), probability))
