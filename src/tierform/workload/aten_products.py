"""Matmuls in all their ATen spellings: linear, addmm, bmm, einsum, convolution, attention, grouped products."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from tierform.errors import fail
from tierform.workload.aten_reader import Reader, kind_of, label_of, shape_of
from tierform.workload.tape import Value

if TYPE_CHECKING:
    from tierform.workload.trace import Run


class Products(Reader):
    """Turns products into matmul operators."""

    def _product(self, node: Any, run: Run, path: str, x: Any, w: Any, n: int, bias: Any = None) -> None:
        """A product with a weight (linear) or of two activations."""
        k = shape_of(x)[-1]
        weight = self.parameter(w, run, path, matrix=True, shape=(n, k))
        value = self.value(x, run)
        if weight is None or value is None:
            self._dynamic(node, run, path, x, w)
            return
        label = path or label_of(path, kind_of(node))
        if bias is not None:
            self.parameter(bias, run, path, matrix=False, name=f"{label}.bias")
        rows = prod(shape_of(node)) // n
        y = run.tape.linear(
            value,
            label,
            n,
            weight.part,
            bias=bias is not None,
            k=k,
            rows=rows,
            shape=shape_of(node),
            weight=weight.name,
        )
        self.keep(node, run, y)

    def _dynamic(self, node: Any, run: Run, path: str, a: Any, b: Any) -> None:
        left, right = self.value(a, run), self.value(b, run)
        if left is None and right is None:
            return
        sa, sb, out = shape_of(a), shape_of(b), shape_of(node)
        m, k = (sa[-2] if len(sa) > 1 else 1), sa[-1]
        n = sb[-1] if len(sb) > 1 else 1
        batch = max(1, prod(out) // max(1, m * n))
        constant = Value("constant", sa if left is None else sb, self.plan.activations)
        y = run.tape.matmul(
            left or constant,
            right or constant,
            label_of(path, kind_of(node)),
            self._module(path, run),
            batch=batch,
            m=m,
            n=n,
            k=k,
            shape=out,
        )
        self.keep(node, run, y)

    def _on_linear(self, node: Any, run: Run, path: str) -> None:
        bias = node.args[2] if len(node.args) > 2 else None
        self._product(node, run, path, node.args[0], node.args[1], shape_of(node)[-1], bias)

    def _on_addmm(self, node: Any, run: Run, path: str) -> None:
        self._product(node, run, path, node.args[1], node.args[2], shape_of(node)[-1], node.args[0])

    def _on_matmul(self, node: Any, run: Run, path: str) -> None:
        self._product(node, run, path, node.args[0], node.args[1], shape_of(node)[-1])

    _on_mm = _on_bmm = _on_matmul

    def _on_baddbmm(self, node: Any, run: Run, path: str) -> None:
        self._dynamic(node, run, path, node.args[1], node.args[2])

    def _on_einsum(self, node: Any, run: Run, path: str) -> None:
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
            y = run.tape.linear(x, path or label, n, weight.part, k=k, rows=m, shape=shape_of(node), weight=weight.name)
        else:
            blank = Value("constant", (size(list(right)),), self.plan.activations)
            y = run.tape.matmul(
                x or blank,
                other or blank,
                label,
                self._module(path, run),
                batch=batch,
                m=m,
                n=n,
                k=k,
                shape=shape_of(node),
            )
        self.keep(node, run, y)

    def _on_conv2d(self, node: Any, run: Run, path: str) -> None:
        kernel, out = shape_of(node.args[1]), shape_of(node)
        value, groups = self.value(node.args[0], run), shape_of(node.args[0])[1] // kernel[1]
        if value is None:
            return
        n, k = kernel[0] // groups, prod(kernel[1:])
        weight = self.parameter(node.args[1], run, path, matrix=True, shape=(n, k), groups=groups)
        label, bias = path or "convolution", node.args[2] if len(node.args) > 2 else None
        if bias is not None:
            self.parameter(bias, run, path, matrix=False, name=f"{label}.bias", shape=(n,), groups=groups)
        module = weight.part if weight else "other"
        self.keep(
            node,
            run,
            run.tape.linear(
                value,
                label,
                n,
                module,
                bias=bias is not None,
                k=k,
                rows=prod(out) // out[1],
                groups=groups,
                shape=out,
                weight=weight.name if weight else None,
            ),
        )

    _on_conv1d = _on_conv3d = _on_convolution = _on_conv2d

    def _on_scaled_dot_product_attention(self, node: Any, run: Run, path: str) -> None:
        q, k, v = (self.value(item, run) for item in node.args[:3])
        if q is None or k is None or v is None:
            return
        sq, keys, vd = shape_of(node.args[0]), shape_of(node.args[1])[-2], shape_of(node.args[2])[-1]
        batch, m, d = prod(sq[:-2]), sq[-2], sq[-1]
        causal = bool(node.kwargs.get("is_causal") or (len(node.args) > 5 and node.args[5]))
        tape = run.tape
        scores = tape.matmul(
            q,
            k,
            label_of(path, "scores"),
            "attention",
            batch=batch,
            m=m,
            n=keys,
            k=d,
            shape=(*sq[:-1], keys),
            causal=causal,
        )
        weights = tape.softmax(scores, label_of(path, "softmax"), "attention", causal)
        self.keep(
            node,
            run,
            tape.matmul(
                weights,
                v,
                label_of(path, "context"),
                "attention",
                batch=batch,
                m=m,
                n=vd,
                k=keys,
                shape=shape_of(node),
                causal=causal,
            ),
        )

    def _on_grouped_mm(self, node: Any, run: Run, path: str) -> None:
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
            run.tape.linear(
                value,
                label_of(path, "grouped"),
                sw[2],
                weight.part,
                k=sw[1],
                rows=rows // touched,
                count=touched,
                groups=sw[0],
                shape=shape_of(node),
                weight=weight.name,
            ),
        )

    _on__grouped_mm = _on_grouped_mm_fallback = _on_grouped_mm
