"""Matmuls in all their ATen spellings: linear, addmm, bmm, einsum, convolution, attention, grouped products."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from tierform.errors import fail
from tierform.workload.operator import Attention, Shard
from tierform.workload.ops import attention_core, enter, linear, matmul
from tierform.workload.ops.collective import gather_features
from tierform.workload.ops.linear import Experts
from tierform.workload.tape import Product, Value
from tierform.workload.tracing.reader import Reader, kind_of, label_of, shape_of

if TYPE_CHECKING:
    from torch.fx import Node

    from tierform.workload.tracing.module import TracedRun


class Products(Reader):
    """Turns products into matmul operators."""

    def _product(
        self, node: Node, run: TracedRun, path: str, x: object, w: object, n: int, bias: object = None
    ) -> None:
        """A product with a weight (linear) or of two activations."""
        k = shape_of(x)[-1]
        value, cut = self.value(x, run), run.tape.tensor > 1 and n % run.tape.tensor == 0
        own = n // run.tape.tensor if cut else n
        weight = self.parameter(w, run, path, matrix=True, shape=(own, k), whole=n * k)
        if weight is None or value is None:
            self._dynamic(node, run, path, x, w)
            return
        label = path or label_of(path, kind_of(node))
        if bias is not None:
            self.parameter(
                bias, run, path, matrix=False, bias=True, name=f"{label}.bias", shape=(own,) if cut else None, whole=n
            )
        shape, tape = shape_of(node), run.tape
        y = linear(
            tape,
            self._entered(value, run) if cut else value,
            label,
            n,
            weight.part,
            bias=bias is not None,
            k=k,
            rows=prod(shape) // n,
            shape=(*shape[:-1], n // tape.tensor) if cut else shape,
            weight=weight.name,
            shard=Shard.OUTPUT if cut else Shard.WHOLE,
        )
        self.keep(node, run, gather_features(tape, y, n, label) if cut else y)

    def _entered(self, value: Value, run: TracedRun) -> Value:
        """The tensor as cut weights read it: their parts of its gradient are summed once."""
        if id(value) not in run.entered:
            run.entered[id(value)] = enter(run.tape, value, 0, value.name)
        return run.entered[id(value)]

    def _dynamic(self, node: Node, run: TracedRun, path: str, a: object, b: object) -> None:
        left, right = self.value(a, run), self.value(b, run)
        if left is None and right is None:
            return
        sa, sb, out = shape_of(a), shape_of(b), shape_of(node)
        m, k = (sa[-2] if len(sa) > 1 else 1), sa[-1]
        n = sb[-1] if len(sb) > 1 else 1
        batch = max(1, prod(out) // max(1, m * n))
        constant = Value("constant", sa if left is None else sb, self.plan.activations)
        y = matmul(
            run.tape,
            left or constant,
            right or constant,
            label_of(path, kind_of(node)),
            self._module(path, run),
            sizes=Product(m, n, k, batch),
            shape=out,
        )
        self.keep(node, run, y)

    def _on_linear(self, node: Node, run: TracedRun, path: str) -> None:
        bias = node.args[2] if len(node.args) > 2 else None
        self._product(node, run, path, node.args[0], node.args[1], shape_of(node)[-1], bias)

    def _on_addmm(self, node: Node, run: TracedRun, path: str) -> None:
        self._product(node, run, path, node.args[1], node.args[2], shape_of(node)[-1], node.args[0])

    def _on_matmul(self, node: Node, run: TracedRun, path: str) -> None:
        self._product(node, run, path, node.args[0], node.args[1], shape_of(node)[-1])

    _on_mm = _on_bmm = _on_matmul

    def _on_baddbmm(self, node: Node, run: TracedRun, path: str) -> None:
        self._dynamic(node, run, path, node.args[1], node.args[2])

    def _on_einsum(self, node: Any, run: TracedRun, path: str) -> None:
        equation, operands = node.args[0].replace(" ", ""), node.args[1]
        if len(operands) != 2 or "->" not in equation or "..." in equation:
            fail("only einsum of two tensors with an explicit result can be counted", value=equation, key=path)
        inputs, result = equation.split("->")
        left, right = inputs.split(",")
        sizes = dict(zip(left + right, shape_of(operands[0]) + shape_of(operands[1]), strict=True))
        shared = [c for c in left if c in right]

        def size(names: list[str]) -> int:
            return prod(sizes[c] for c in names)

        batch, k = size([c for c in shared if c in result]), size([c for c in shared if c not in result])
        m, n = size([c for c in left if c not in right]), size([c for c in right if c not in left])
        weight = self.parameter(operands[1], run, path, matrix=True, shape=(n, k)) if batch == 1 else None
        x, other = self.value(operands[0], run), self.value(operands[1], run)
        label = label_of(path, "einsum")
        if weight is not None and x is not None:
            y = linear(
                run.tape, x, path or label, n, weight.part, k=k, rows=m, shape=shape_of(node), weight=weight.name
            )
        else:
            blank = Value("constant", (size(list(right)),), self.plan.activations)
            y = matmul(
                run.tape,
                x or blank,
                other or blank,
                label,
                self._module(path, run),
                sizes=Product(m, n, k, batch),
                shape=shape_of(node),
            )
        self.keep(node, run, y)

    def _on_conv2d(self, node: Node, run: TracedRun, path: str) -> None:
        kernel, out = shape_of(node.args[1]), shape_of(node)
        value, groups = self.value(node.args[0], run), shape_of(node.args[0])[1] // kernel[1]
        if value is None:
            return
        n, k = kernel[0] // groups, prod(kernel[1:])
        weight = self.parameter(node.args[1], run, path, matrix=True, shape=(n, k), groups=groups)
        label, bias = path or "convolution", node.args[2] if len(node.args) > 2 else None
        if bias is not None:
            self.parameter(bias, run, path, matrix=False, bias=True, name=f"{label}.bias", shape=(n,), groups=groups)
        module = weight.part if weight else "other"
        self.keep(
            node,
            run,
            linear(
                run.tape,
                value,
                label,
                n,
                module,
                bias=bias is not None,
                k=k,
                rows=prod(out) // out[1],
                experts=Experts(groups, groups, groups),
                shape=out,
                weight=weight.name if weight else None,
            ),
        )

    _on_conv1d = _on_conv3d = _on_convolution = _on_conv2d

    def _on_scaled_dot_product_attention(self, node: Node, run: TracedRun, path: str) -> None:
        q, k, v = (self.value(item, run) for item in node.args[:3])
        if q is None or k is None or v is None:
            return
        sq, keys, vd = shape_of(node.args[0]), shape_of(node.args[1])[-2], shape_of(node.args[2])[-1]
        batch, m, d = prod(sq[:-2]), sq[-2], sq[-1]
        causal = bool(node.kwargs.get("is_causal") or (len(node.args) > 5 and node.args[5]))
        run.tape.cores += 1
        groups = shape_of(node.args[1])[-3] if len(sq) > 3 else batch
        core = Attention(
            number=run.tape.cores,
            sequences=prod(sq[:-3]) if len(sq) > 3 else 1,
            queries=m,
            keys=keys,
            heads=sq[-3] if len(sq) > 3 else batch,
            kv_heads=groups,
            head_dim=d,
            value_dim=vd,
            causal=causal and m > 1,
        )
        shape = shape_of(node)
        self.keep(node, run, attention_core(run.tape, q, k, v, core, path or "attention", shape=shape))

    def _on_grouped_mm(self, node: Node, run: TracedRun, path: str) -> None:
        """Rows sorted by expert times each expert's matrix: rows shared out evenly."""
        sw = shape_of(node.args[1])
        value = self.value(node.args[0], run)
        weight = self.parameter(node.args[1], run, path, matrix=True, shape=(sw[2], sw[1]), groups=sw[0])
        if value is None or weight is None:
            return
        rows = prod(shape_of(node.args[0])[:-1])
        touched = min(sw[0], rows)
        if rows % touched:
            fail(
                "the rows of a grouped product do not divide by its experts",
                key=path,
                value=rows,
                fix=f"Choose an input whose tokens times experts per token divide by {touched}.",
            )
        self.keep(
            node,
            run,
            linear(
                run.tape,
                value,
                label_of(path, "grouped"),
                sw[2],
                weight.part,
                k=sw[1],
                rows=rows // touched,
                experts=Experts(sw[0], sw[0], touched),
                shape=shape_of(node),
                weight=weight.name,
            ),
        )

    _on__grouped_mm = _on_grouped_mm_fallback = _on_grouped_mm
