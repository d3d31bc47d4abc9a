"""A product of two dynamic tensors.

Forward   C = A B        `batch` times (m, k) by (k, n)
Backward  dA = dC B^T    dB = A^T dC
"""

from __future__ import annotations

from tierform.workload.operator import Kind
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Product, Shape, Tape, Value


def matmul(
    tape: Tape,
    a: Value,
    b: Value,
    name: str,
    part: str,
    *,
    sizes: Product,
    shape: Shape,
    causal: bool = False,
    scores: bool = False,
) -> Value:
    """The product, of `shape` (`scores`: of attention); each factor is kept where the other needs a gradient."""
    batch, m, n, k = sizes.batch, sizes.m, sizes.n, sizes.k
    y = tape.value(f"{name}.out", shape, cut=a.cut or b.cut)
    y.scores = scores
    saved = tuple(value for value, other in ((b, a), (a, b)) if other.grad)

    def backward(reverse: Reverse, dy: Value) -> None:
        if a.grad:
            da, left = reverse.gradient_of(a), Product(m, k, n, batch)
            reverse.emit(f"{name}.grad_left", Kind.MATMUL, (dy, b), da, sizes=left, causal=causal)
            reverse.arrive(a, da)
        if b.grad:
            db, right = reverse.gradient_of(b), Product(k, n, m, batch)
            reverse.emit(f"{name}.grad_right", Kind.MATMUL, (a, dy), db, sizes=right, causal=causal)
            reverse.arrive(b, db)

    return tape.emit(name, Kind.MATMUL, part, (a, b), y, saved=saved, sizes=sizes, causal=causal, backward=backward)
