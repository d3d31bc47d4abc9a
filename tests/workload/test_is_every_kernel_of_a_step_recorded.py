"""Is a training step on a processor every kernel that PyTorch dispatches for it, forward and backward?"""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from tierform.errors import TierformError  # noqa: E402
from tierform.workload import FineTuning, Full  # noqa: E402
from tierform.workload.graph import StageKind  # noqa: E402
from tierform.workload.operator import Kind, Role  # noqa: E402
from tierform.workload.tracing.dispatched import as_dispatched, record  # noqa: E402
from tierform.workload.tracing.module import trace  # noqa: E402


class _Two(nn.Module):
    """Two products and a function between; the first input asks for no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x))).square().mean()


class _Norm(nn.Module):
    """A root mean square written out in six operations."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))

    def forward(self, x: Tensor) -> Tensor:
        return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight).sum()


def _dispatched(module: nn.Module, batch: Tensor):  # type: ignore[no-untyped-def]
    task = FineTuning(Full(), batch=batch.shape[0], sequence=batch.shape[1], optimizer="adamw")
    return as_dispatched(trace(module, [batch], training=True, task=task), module, [batch])


def test_are_products_those_of_forward_and_backward_by_hand() -> None:
    """Two products forward; backward two weight gradients and one input gradient, that of the second layer."""
    module = _Two()
    before = [one.clone() for one in module.parameters()]
    step = _dispatched(module, torch.randn(5, 8))
    sizes = {
        stage.kind: Counter(
            (one.m, one.n, one.k) for block in stage.blocks for one in block.operators if one.kind is Kind.MATMUL
        )
        for stage in step.stages
    }
    assert sizes[StageKind.FORWARD] == Counter([(5, 16, 8), (5, 4, 16)])
    assert sizes[StageKind.BACKWARD] == Counter([(5, 16, 4), (4, 16, 5), (16, 8, 5)])
    weights = [
        one.inputs[1].role is Role.WEIGHT
        for stage in step.stages
        for block in stage.blocks
        for one in block.operators
        if one.kind is Kind.MATMUL
    ]
    assert sum(weights) == 3  # both forward, and the input gradient; a weight gradient's factors are activations
    for now, then in zip(module.parameters(), before, strict=True):  # nothing was executed
        assert torch.equal(now, then) and now.grad is None


def test_is_a_normalization_that_is_written_out_as_many_kernels() -> None:
    """x^2, mean, + eps, rsqrt, two products, sum: seven forward, and each has a gradient of its own."""
    calls = [call for call in record(_Norm(), [torch.randn(3, 16)]) if not call.issued_only]
    forward = [call.name for call in calls if not call.backward]
    assert forward == ["pow", "mean", "add", "rsqrt", "mul", "mul", "sum"]
    assert sum(call.backward for call in calls) >= 2  # the weight's gradient: a product and a sum over rows
    plain = trace(_Norm(), [torch.randn(3, 16)], training=True)
    own = _dispatched(_Norm(), torch.randn(3, 16))
    kernels = [sum(len(block.operators) for block in step.stages[0].blocks) for step in (plain, own)]
    assert kernels[1] >= 7


def test_what_is_repeated_by_a_stride_of_zero_is_read_once() -> None:
    class Widened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 16))

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.weight.expand(64, 16)).sum()

    add = next(call for call in record(Widened(), [torch.randn(64, 16)]) if call.name == "add")
    assert sorted(add.read) == [16, 64 * 16] and add.written == (64 * 16,)


def test_views_compute_nothing_and_are_counted() -> None:
    """Three views forward; the host has work with each of them, and with those of the backward pass."""

    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 16))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight.view(64).view(2, 32).view(64) * x.view(64)).sum()

    step = _dispatched(Viewed(), torch.randn(4, 16))
    (views,) = [one for one in step.stages[0].blocks[0].operators if not one.outputs]
    assert views.count == 4 and not views.inputs and views.operations == 0
    assert views.after  # it stands in the chain


def test_a_step_that_depends_on_values_is_refused() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            y = (x * self.weight).sum()
            return y * 2 if float(y.detach()) > 0 else y

    with pytest.raises(TierformError, match="Control flow"):
        record(Deciding(), [torch.randn(3, 4)])
