"""Are the planes of a token shared over matrices as their outputs matter, never more than the whole?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.store.channel_rule import plane_worth
from tierform.store.channel_shares import averages_to_try, error_curve, share


def test_does_the_matrix_that_matters_more_get_more() -> None:
    """Two matrices of 100 weights whose error falls by a factor of four with each plane; one counts 16 times as much.

    With errors 4^-a and 16 x 4^-b and a + b = 8, the derivatives are equal where 4^-a = 16 x 4^-b: b = a + 2, so 3, 5.
    """
    curve = 4.0 ** -averages_to_try()
    assert share([curve, 16 * curve], [100, 100], 4.0) == pytest.approx([3.0, 5.0])


def test_does_a_small_matrix_cost_less_of_the_whole() -> None:
    """Where the curves are alike, a plane of a matrix of a quarter of the weights takes off four times as much a bit.

    4^-a / 400 = 4^-b / 100: b = a + 1; 400 a + 100 b = 4 x 500 gives a = 3.8.  Steps of a quarter: 3.75 and 5.0 cost
    all 2,000; 4.0 and 4.0 would cost as much and leave 2 x 4^-4 = .0078 where these leave .0065.
    """
    curve = 4.0 ** -averages_to_try()
    assert share([curve, curve], [400, 100], 4.0) == pytest.approx([3.75, 5.0])


def test_is_a_step_that_needs_two_planes_at_once_taken_whole() -> None:
    """A curve that is flat for a plane and then falls to nothing is not left in the flat part."""
    tried = averages_to_try()
    late = np.where(tried < 3.0, 1.0, 0.0)
    assert share([late, np.zeros_like(late)], [10, 10], 2.0) == pytest.approx([3.0, 1.0])
    assert share([late, np.zeros_like(late)], [10, 10], 1.5) == pytest.approx([2.0, 1.0])  # not enough: all it has


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_is_the_whole_never_exceeded_and_never_worse_than_equal_shares(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 5))
    weights = data.draw(st.lists(st.sampled_from([64, 100, 576]), min_size=number, max_size=number))
    average = data.draw(st.sampled_from([1.0, 2.0, 3.25, 4.0, 8.0]))
    tried = averages_to_try()
    scales = data.draw(st.lists(st.floats(1e-3, 1e3), min_size=number, max_size=number))
    costs = [scale * 4.0**-tried for scale in scales]
    found = share(costs, weights, average)
    assert np.dot(found, weights) <= average * sum(weights) * (1 + 1e-12)
    place = np.searchsorted(tried, found)
    equal = int(np.searchsorted(tried, average))
    spent = sum(cost[at] for cost, at in zip(costs, place, strict=True))
    # Only what is left where the last matrix ends inside a step may be lost.
    last = max(cost[at] - cost[min(at + 1, len(cost) - 1)] for cost, at in zip(costs, place, strict=True))
    assert spent <= sum(cost[equal] for cost in costs) + last + 1e-12


def test_does_a_curve_fall_to_the_error_of_all_planes() -> None:
    """One channel, one output: at 1 plane 4, at 2 planes 1, nothing beyond; inputs of 3 square to 9."""
    errors = np.array([[16.0, 4.0, 1.0, 0, 0, 0, 0, 0, 0]], np.float32)
    curve = error_curve(np.array([[9.0], [9.0]], np.float32), plane_worth(errors))
    tried = averages_to_try()
    assert curve[tried == 1.0] == pytest.approx(36.0)
    assert curve[tried == 2.0] == pytest.approx(9.0)
    assert curve[-1] == 0.0


def test_is_less_than_a_plane_refused() -> None:
    with pytest.raises(TierformError, match="planes"):
        share([averages_to_try()], [1], 0.5)
