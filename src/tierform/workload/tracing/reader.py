"""Reads an exported program: where each node stands, which tensors and weights it uses.

Tensors are known by the node that made them; one that another run of nodes made enters a run under a name of its own,
so that equal layers read alike.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tierform.workload.precision import PrecisionPlan
from tierform.workload.tape import Parameter, Shape, Value
from tierform.workload.tensor_formats import formats_of

if TYPE_CHECKING:
    from torch.fx import Node

    from tierform.workload.tracing.module import TracedRun

VIEWS = {
    "view",
    "reshape",
    "_unsafe_view",
    "transpose",
    "permute",
    "t",
    "contiguous",
    "clone",
    "detach",
    "alias",
    "to",
    "_to_copy",
    "type_as",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "expand",
    "expand_as",
    "lift_fresh_copy",
    "getitem",
    "_assert_tensor_metadata",
    "repeat_interleave",
    "float",
    "movedim",
    "swapaxes",
    "view_as",
    "numpy_T",
    "wrap_with_set_grad_enabled",
    "_reshape_alias",
    "unsafe_view",
}
_ATTENTION, _EMBEDDING = re.compile(r"att|self\b|q_proj|k_proj|v_proj|o_proj"), re.compile(r"embed|wte|wpe|patch")
_HEAD, _NORM = re.compile(r"head|classifier|pooler|score|qa_outputs|cls\b"), re.compile(r"norm|\bln_|_ln\b")


class Reader:
    """One exported program: where its nodes stand, what tensors and weights they use."""

    def __init__(self, program: Any, module: Any, plan: PrecisionPlan, training: bool) -> None:
        self.program, self.plan, self.training = program, plan, training
        self.formats = replace(formats_of(plan, training=True), vectors=plan.activations, loss="fp32")
        self.learns = {name: p.requires_grad for name, p in module.named_parameters(remove_duplicate=False)}
        signature = program.graph_signature
        self.parameters = {n: fqn.removeprefix("module.") for n, fqn in signature.inputs_to_parameters.items()}
        self.nodes = [node for node in program.graph.nodes if node.op == "call_function"]
        self.values: dict[str, Any] = {}
        self.homes: dict[str, TracedRun] = {}
        self.outputs: list[str] = []
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in signature.user_inputs and is_floating(node):
                self.values[node.name] = Value(node.name, shape_of(node), plan.activations)
            if node.op == "output":
                self.outputs = [a.name for a in node.args[0] if hasattr(a, "name")]
        self._fold = self._written_out_norms()

    # -- where a node stands ------------------------------------------------------------------------------------
    def path(self, node: Node) -> str:
        """Path of the module that a node belongs to."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = stack[-1][0] if stack else ""
        path = re.sub(r"^L\['self'\]\.?|^module\.?", "", path)
        return path.removeprefix("module.")

    def _class(self, node: Node) -> str:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return str(stack[-1][1]).rsplit(".", 1)[-1] if stack else ""

    def _relative(self, path: str, run: TracedRun) -> str:
        start = f"{run.prefix}{run.index}." if run.index is not None else ""
        return f"{path}.".removeprefix(start).removesuffix(".") if start else path

    def _module(self, path: str, run: TracedRun) -> str:
        lower = path.lower()
        if "lora_" in lower:
            return "adapter"
        if _NORM.search(lower):
            return "normalization"
        if run.index is None:
            if _HEAD.search(lower):
                return "head"
            return "embedding" if _EMBEDDING.search(lower) else "other"
        return "attention" if _ATTENTION.search(lower) else "ffn"

    def _written_out_norms(self) -> dict[str, list[Any]]:
        """Last node's name -> nodes, for each run of nodes inside a module whose class is named ...Norm."""
        groups: list[list[Any]] = []
        for node in self.nodes:
            if "Norm" in self._class(node) and kind_of(node) not in ("layer_norm", "rms_norm", "native_layer_norm"):
                if groups and self.path(groups[-1][-1]) == self.path(node) and groups[-1][-1].next is node:
                    groups[-1].append(node)
                else:
                    groups.append([node])
        folded: dict[str, list[Any]] = {}
        for group in groups:
            if any(kind_of(node) in ("rsqrt", "sqrt", "var_mean", "std") for node in group):
                for node in group:
                    folded[node.name] = group
        return folded

    # -- tensors ------------------------------------------------------------------------------------------------
    def value(self, node: Any, run: TracedRun) -> Value | None:
        """The activation that a node stands for, entering the run where another run made it; None for constants."""
        name = node.name
        found = self.values.get(name)
        if not isinstance(found, Value):
            return None
        home = self.homes.get(name)
        if home is run:
            return found
        if name not in run.entering:
            same = next((v for n, v in run.entering.items() if self.values.get(n) is found), None)
            run.entering[name] = same or Value(
                f"in{len(run.entering)}", found.shape, found.precision, found.role, grad=found.grad
            )
            if home is not None:
                home.leaving.setdefault(name, found)
        return run.entering[name]

    def keep(self, node: Node, run: TracedRun, value: object) -> None:
        """Remember what a node gives."""
        self.values[node.name] = value
        self.homes[node.name] = run
        if node.name in self.outputs and isinstance(value, Value):
            run.leaving[node.name] = value

    def parameter(
        self,
        node: Any,
        run: TracedRun,
        path: str,
        *,
        matrix: bool,
        bias: bool = False,
        name: str | None = None,
        shape: Shape | None = None,
        groups: int = 1,
        whole: int = 0,
    ) -> Parameter | None:
        """The weight that a node stands for, or None."""
        while hasattr(node, "op") and node.op == "call_function" and kind_of(node) in VIEWS and node.args:
            node = node.args[0]
        fqn = self.parameters.get(getattr(node, "name", ""))
        if fqn is None:
            return None
        label = name or self._relative(fqn, run)
        module = self._module(fqn if run.index is None else path, run)
        return run.tape.parameter(
            label,
            shape or shape_of(node),
            module,
            matrix=matrix,
            bias=bias,
            groups=groups,
            active=groups,
            whole=whole,
            trainable=self.training and self.learns.get(fqn, False),
            adapter=module == "adapter",
        )


def kind_of(node: Any) -> str:
    """Name of an ATen operator without namespace, overload and in-place mark."""
    target = node.target
    packet = getattr(target, "overloadpacket", None)
    name = str(getattr(packet, "__name__", None) or getattr(target, "__name__", target))
    return name if name.startswith("_") and name.endswith("__") else name.rstrip("_")


def label_of(path: str, kind: str) -> str:
    """Name of an operator of a kind inside a module."""
    return f"{path}.{kind}" if path else kind


def shapes_of(node: Any) -> list[Shape]:
    """Shapes of all tensors that a node gives."""
    found = node.meta.get("val")
    items = found if isinstance(found, (list, tuple)) else [found]
    return [tuple(int(size) for size in item.shape) for item in items if hasattr(item, "shape")]


def shape_of(node: object) -> Shape:
    """Shape of the (first) tensor that a node gives; empty where it gives none."""
    shapes = shapes_of(node)
    return shapes[0] if shapes else ()


def is_floating(node: Any) -> bool:
    """Whether a node gives floating-point values."""
    found = node.meta.get("val")
    item = found[0] if isinstance(found, (list, tuple)) and found else found
    return bool(getattr(getattr(item, "dtype", None), "is_floating_point", False))


def tensors_of(node: Any) -> list[Any]:
    """The nodes among a node's arguments that give tensors."""
    flat = [a for argument in node.args for a in (argument if isinstance(argument, (list, tuple)) else [argument])]
    return [a for a in (*flat, *node.kwargs.values()) if hasattr(a, "name") and shapes_of(a)]
