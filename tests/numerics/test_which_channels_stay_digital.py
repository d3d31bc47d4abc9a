"""Are digital channels chosen by what their cells' errors cost the loss, and do they do what was promised?"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tierform.errors import TierformError  # noqa: E402
from tierform.numerics import describe, emulate, new_chip_instance, share_by_influence  # noqa: E402
from tierform.numerics.digital import DigitalShare  # noqa: E402
from tierform.numerics.influence import channel_influences  # noqa: E402


class Two(torch.nn.Module):
    """Two layers one after the other; the loss looks at the second one's first output alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 2, bias=False)
        self.second = torch.nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 4.0]]))
            self.second.weight.copy_(torch.tensor([[3.0, -1.0], [100.0, 100.0]]))

    def forward(self, x):
        return self.second(self.first(x))


def test_is_an_influence_the_sum_of_the_formula() -> None:
    """By hand: x = (1, 2, 0), first gives (5, -2), second 17 and more; the loss is its half square, so g = (17, 0).

    Second: scales (3, 100), g² (289, 0): 289 · 9 = 2601 by x² = (25, 4).
    First: g = 17 · (3, -1) = (51, -17), scales (2, 4): 2601 · 4 + 289 · 16 = 15028 by x² = (1, 4, 0).
    """
    model, x = Two(), torch.tensor([[1.0, 2.0, 0.0]])
    model.first.weight.requires_grad_(False)
    found = channel_influences(model, lambda network: network(x)[0, 0].square() / 2, 128)
    assert found["second"].tolist() == pytest.approx([2601 * 25, 2601 * 4])
    assert found["first"].tolist() == pytest.approx([15028, 15028 * 4, 0])
    # nothing is left of the pass: no gradients, the flags as they were, no hooks
    assert not model.first.weight.requires_grad and model.second.weight.requires_grad
    assert model.second.weight.grad is None and not model.first._forward_hooks
    # one scale for both outputs of a crossbar: 4 and 100
    whole = channel_influences(model, lambda network: network(x)[0, 0].square() / 2, 128, outputs=2)
    assert whole["second"].tolist() == pytest.approx([289 * 100**2 * 25, 289 * 100**2 * 4])


def test_are_channels_taken_by_influence_over_cost_within_the_share() -> None:
    """Ten products in all: 0.45 of them are four, two channels of two outputs each, both with the largest influence."""
    model, x = Two(), torch.tensor([[1.0, 2.0, 0.0]])

    def loss(network):
        return network(x)[0, 0].square() / 2

    share = share_by_influence(model, loss, 0.45, beside=DigitalShare(channels=7, weights=0.01))
    assert dict(share.named) == {"first": (1,), "second": (0,)}
    assert share.channels == 0 and share.weights == 0.01
    with pytest.raises(TierformError, match="between 0 and 1"):
        share_by_influence(model, loss, 1.0)


def test_are_named_channels_exact_and_counted() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(200, 40), torch.nn.ReLU(), torch.nn.Linear(40, 10))
    share = DigitalShare(named=(("0", (3, 150)), ("2", ())))
    found = emulate(model, "atleus", noise="programming-2pct", fidelity="weights", scale="column", digital=share)
    assert [row["digital_products"] for row in describe(found)] == [2 * 40, 0]
    x = torch.zeros(5, 200)
    x[:, [3, 150]] = torch.randn(5, 2)  # nothing else is driven, and these drive no cell
    assert torch.allclose(found[0](x), model[0](x), atol=1e-6)
    x[:, 4] = 1.0
    assert not torch.allclose(found[0](x), model[0](x), atol=1e-4)
    with pytest.raises(TierformError, match="no such input channel"):
        emulate(model, "atleus", digital=DigitalShare(named=(("0", (200,)),)))


def test_loses_a_model_less_by_influence_than_by_energy() -> None:
    """A layer's energies cannot know that half of the next layer does not matter."""
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64, bias=False))
    with torch.no_grad():
        model[1].weight[:, 32:] *= 1e-3  # the second half of the first layer's outputs is hardly read
        model[0].weight[32:] *= 50.0  # but is large
    x = torch.randn(256, 64) * torch.linspace(0.1, 3, 64)
    wanted = model(x).detach()

    def loss(network):  # half square around the exact answer, from a small error on: its gradient is not zero
        return (network(x) - wanted - 0.1 * wanted.std()).square().sum() / 2

    def lost(share):
        options = {"noise": "programming-2pct", "fidelity": "weights", "scale": "column", "digital": share}
        found = emulate(model, "atleus", calibration=lambda network: network(x), **options)
        total = 0.0
        for chip in range(1, 6):
            new_chip_instance(found, chip)
            total += float((found(x).detach() - wanted).square().mean())
        return total, sum(row["digital_products"] for row in describe(found))

    by_energy, spent = lost(DigitalShare(channels=8))
    by_influence, used = lost(share_by_influence(model, loss, spent / (2 * 64 * 64)))
    assert used <= spent
    assert by_influence < 0.95 * by_energy
