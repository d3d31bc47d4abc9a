"""Do weights that one holder cannot take go to the others with room, and no more of them than must, by hand?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tierform.mapping.place import HeldWeight, _share_out


@dataclass
class Holder:
    """So many crossbars; `sizes` are those that it needs for a weight, and it runs no other."""

    crossbars: int
    sizes: dict[str, int] = field(default_factory=dict)

    def crossbars_for(self, operator: Any) -> int:
        return self.sizes[operator]

    def supports(self, operator: Any) -> bool:
        return operator in self.sizes


def held(name: str, crossbars: int, layers: int = 1) -> HeldWeight:
    return HeldWeight(
        block="layer",
        name=name,
        head=False,
        crossbars=crossbars,
        layers=layers,
        occupancy_s=1.0,
        trainable=False,
        operators=[(f"forward/{name}", name), (f"backward/{name}", name)],  # type: ignore[list-item]
    )


def shared(holders: dict[str, Holder], copies: int = 2) -> dict[str, dict[str, int]]:
    """Crossbars of each weight on each holder; at first all four are on `a`, and one on `b`."""
    found = {name: [] for name in holders} | {
        "a": [held("w1", 4), held("w2", 1, layers=3), held("w3", 5), held("w4", 3)],
        "b": [held("other", 4)],
    }
    assignments = {key: name for name, weights in found.items() for weight in weights for key, _ in weight.operators}
    _share_out(found, holders, copies, assignments)  # type: ignore[arg-type]
    for name, weights in found.items():
        for weight in weights:
            assert [assignments[key] for key, _ in weight.operators] == [name, name]
    return {name: {weight.name: weight.crossbars for weight in weights} for name, weights in found.items()}


B = Holder(40, {"w3": 9, "w4": 6})
WHOLE = {"w1": 4, "w2": 1, "w3": 5, "w4": 3}


def test_does_nothing_move_where_everything_fits() -> None:
    """Two copies of 4 + 3 + 5 + 3 crossbars are 30."""
    assert shared({"a": Holder(30), "b": B}) == {"a": WHOLE, "b": {"other": 4}}


@pytest.mark.parametrize(
    ("room", "moved"),
    [
        (29, {"w4": 6}),
        (24, {"w4": 6}),  # two copies of w4 free 6: it just fits
        (23, {"w4": 6, "w3": 9}),  # 18 of the 20 that are left on b
        (14, {"w4": 6, "w3": 9}),
        (13, {"w4": 6, "w3": 9}),  # one is missing still, and b runs none of the others
    ],
)
def test_do_the_last_weights_move_until_the_rest_fits(room: int, moved: dict[str, int]) -> None:
    found = shared({"a": Holder(room), "b": B})
    assert found["b"] == {"other": 4, **moved}
    assert found["a"] == {name: size for name, size in WHOLE.items() if name not in moved}


def test_does_a_weight_stay_where_no_other_has_room() -> None:
    """b has 32 crossbars: w4 takes 12, w3 would take 22 of the 20 that are left; w2 (three layers) takes 6 x 3."""
    found = shared({"a": Holder(23), "b": Holder(40, {"w2": 3, "w3": 11, "w4": 6})})
    assert found == {"a": {"w1": 4, "w3": 5}, "b": {"other": 4, "w4": 6, "w2": 3}}


def test_goes_a_weight_to_the_holder_with_most_room() -> None:
    """c has 33 crossbars, b 32: w4 goes to c, after which b has more."""
    both = {"w3": 9, "w4": 6}
    found = shared({"a": Holder(23), "b": Holder(40, both), "c": Holder(33, both)})
    assert found == {"a": {"w1": 4, "w2": 1}, "b": {"other": 4, "w3": 9}, "c": {"w4": 6}}
    # One copy: 15 crossbars on 14.
    assert shared({"a": Holder(14), "b": Holder(40, both)}, copies=1)["b"] == {"other": 4, "w4": 6}
