import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_ind

from tierform.errors import TierformError
from tierform.tuning.journal import Journal
from tierform.tuning.odds import odds
from tierform.tuning.rank import rank_of
from tierform.tuning.rule import FixedStep, HpTRule, IntrinsicDimension, LossPlateau, Window, slowing, t_test

K = 10
# Means and changes that meet all conditions at the fourth window: falls of 5, 4, 3 (of about 100) and 0.5, 0.4, ...
LOSSES = [100.0, 95.0, 91.0, 88.0]
CHANGES = [None, 10.0, 9.95, 9.92]


def feed(rule, losses, changes):
    return [
        rule.end_window(Window(K * (index + 1), loss, change))
        for index, (loss, change) in enumerate(zip(losses, changes, strict=True))
    ]


def test_the_hand_made_trace_begins_its_trial_at_the_fourth_window():
    decisions = feed(HpTRule(K), LOSSES, CHANGES)
    assert [one.action for one in decisions] == ["wait", "wait", "wait", "trial"]
    assert decisions[-1].step == 4 * K
    assert decisions[-1].numbers["loss_fall_1"] == pytest.approx(4 / 95)
    assert decisions[-1].numbers["change_fall_2"] == pytest.approx(0.03 / 9.95)


@pytest.mark.parametrize(
    ("losses", "changes", "action"),
    [
        # each loss condition from both sides: the first fall, the second fall, the falls' order
        ([100, 100, 90.01, 81.1], CHANGES, "trial"),  # (100-90.01)/100 = 0.0999
        ([100, 100, 90.0, 82.0], CHANGES, "wait"),  # exactly 0.10 is not less
        ([100, 100, 89.0, 81.0], CHANGES, "wait"),
        ([300, 200, 181.0, 163.0], CHANGES, "trial"),  # second fall 18/181 = 0.0994
        ([300, 200, 181.0, 162.5], CHANGES, "wait"),  # 18.5/181 = 0.1022
        ([100, 100, 95, 90.01], CHANGES, "trial"),  # 4.99 < 5
        ([100, 100, 95, 90.0], CHANGES, "wait"),  # 5 is not less than 5
        # a rising loss counts as slowed down when its second step falls less than its first
        ([100, 100, 101, 103], CHANGES, "trial"),
        ([100, 100, 103, 104], CHANGES, "wait"),  # -1 > -3
        # each weight condition from both sides
        (LOSSES, [None, 10.0, 9.901, 9.8025], "trial"),  # 0.0099 and 0.00995
        (LOSSES, [None, 10.0, 9.899, 9.85], "wait"),  # 0.0101
        (LOSSES, [None, 10.0, 9.89, 9.85], "wait"),  # first fall 0.011
        (LOSSES, [None, 1000.0, 990.1, 980.3], "trial"),  # second fall 0.0098981
        (LOSSES, [None, 1000.0, 990.5, 980.5], "wait"),  # 0.010096
        (LOSSES, [None, 10.0, 9.9375, 9.8751], "trial"),
        (LOSSES, [None, 10.0, 9.9375, 9.875], "wait"),  # equal falls
        # nothing relative to zero
        ([1, 0, 0, -1], CHANGES, "wait"),
        (LOSSES, [None, 0.0, 0.0, 0.0], "wait"),
    ],
)
def test_each_condition_from_both_sides(losses, changes, action):
    assert feed(HpTRule(K), losses, changes)[-1].action == action


def test_both_tests_must_hold_in_the_same_window():
    # loss test holds at window 4 only, weight test at window 5 only
    decisions = feed(HpTRule(K), [100, 99, 95, 91.5, 80], [None, 10, 9.0, 8.95, 8.92])
    assert decisions[3].numbers["loss_test"] and not decisions[3].numbers["weight_test"]
    assert decisions[4].numbers["weight_test"] and not decisions[4].numbers["loss_test"]
    assert [one.action for one in decisions] == ["wait"] * 5


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=3), st.lists(st.floats(0.1, 10), min_size=2, max_size=2))
def test_never_a_trial_before_the_fourth_window(losses, changes):
    assert all(one.action == "wait" for one in feed(HpTRule(K, 10, 10), losses, [None, *changes]))


def test_thresholds_are_parameters():
    wide = HpTRule(K, loss_threshold=0.5, weight_threshold=0.5)
    assert feed(wide, [100, 100, 60, 40], [None, 10, 6, 4])[-1].action == "trial"
    assert feed(HpTRule(K), [100, 100, 60, 40], [None, 10, 6, 4])[-1].action == "wait"


def test_the_trial_ends_as_the_t_test_says():
    rule, noise = HpTRule(K), np.random.default_rng(0).standard_normal(200)
    full = list(1 + 0.1 * noise[:100])
    reference = np.array(noise[100:])
    critical = student.ppf(1 - 0.005, 198)
    low, high = 0.0, 1.0
    for _ in range(60):  # the shift at which |t| equals the critical value
        middle = (low + high) / 2
        low, high = (
            (middle, high) if abs(ttest_ind(full, 1 + 0.1 * reference + middle)[0]) < critical else (low, middle)
        )
    inside = rule.end_trial(5 * K, full, list(1 + 0.1 * reference + low - 1e-6))
    outside = rule.end_trial(5 * K, full, list(1 + 0.1 * reference + high + 1e-6))
    assert (inside.action, outside.action) == ("switch", "repeat")
    assert inside.numbers["p"] > 0.01 > outside.numbers["p"]
    assert abs(inside.numbers["t"]) < critical < abs(outside.numbers["t"])


@given(
    st.lists(st.floats(-100, 100), min_size=3, max_size=20),
    st.lists(st.floats(-100, 100), min_size=3, max_size=20),
)
def test_the_t_test_agrees_with_scipy(first, second):
    ours = t_test(first, second, 0.01)
    if np.std(first) + np.std(second) < 1e-6:
        return
    theirs = ttest_ind(first, second)
    assert ours.t == pytest.approx(theirs.statistic, rel=1e-6, abs=1e-9)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)


def test_lists_without_spread():
    assert t_test([1, 1], [1, 1], 0.01).same(0.01)
    assert not t_test([1, 1], [2, 2], 0.01).same(0.01)


def test_a_rule_continues_from_its_state():
    rule = HpTRule(K)
    feed(rule, LOSSES[:3], CHANGES[:3])
    other = HpTRule(K)
    other.restore(rule.state())
    assert other.end_window(Window(4 * K, LOSSES[3], CHANGES[3])).action == "trial"
    plateau = LossPlateau(K, 0.01, 2)
    feed(plateau, [1.0, 1.0], [None, None])
    again = LossPlateau(K, 0.01, 2)
    again.restore(plateau.state())
    assert again.end_window(Window(30, 1.0)).action == "trial"


def test_the_other_rules_from_both_sides():
    fixed = FixedStep(25, window=K)
    assert [one.action for one in feed(fixed, [1, 1, 1], [None] * 3)] == ["wait", "wait", "switch"]
    plateau = LossPlateau(K, threshold=0.01, patience=2, trial=False)
    trace = [1.0, 0.98, 0.9702, 0.9605]  # falls of 2 %, exactly 1 %, then 1.99 % of the best
    assert [one.action for one in feed(plateau, trace, [None] * 4)] == ["wait"] * 4
    plateau = LossPlateau(K, threshold=0.01, patience=2, trial=False)
    assert [one.action for one in feed(plateau, [1.0, 0.995, 0.991], [None] * 3)] == ["wait", "wait", "switch"]
    rule = IntrinsicDimension(K, 16)
    found = [rule.end_window(Window(K, 1.0, None, dimension)).action for dimension in (None, 17, 16)]
    assert found == ["wait", "wait", "trial"]


def test_impossible_settings_are_refused_all_at_once():
    with pytest.raises(TierformError) as caught:
        HpTRule(1, loss_threshold=math.nan, alpha=2)
    assert {one.key for one in caught.value.problems} == {"window", "alpha", "loss_threshold"}


def test_slowing_reports_its_falls():
    assert slowing(10, 9.5, 9.2, 0.1) == (True, pytest.approx(0.05), pytest.approx(0.3 / 9.5))
    assert slowing(0, 1, 1, 0.1)[1] is None


def test_the_rank_from_a_spectrum_made_by_hand():
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.standard_normal((12, 12)))[0], np.linalg.qr(rng.standard_normal((8, 8)))[0]
    values = np.sqrt([0.5, 0.3, 0.15, 0.05, 0, 0, 0, 0])
    change = (left[:, :8] * values) @ right
    assert [rank_of(change, share) for share in (0.49, 0.51, 0.79, 0.81, 0.94, 0.96)] == [1, 2, 2, 3, 3, 4]
    assert rank_of(change, 0.96, most=2) == 2
    assert rank_of(np.zeros((4, 4)), least=2) == 2
    with pytest.raises(TierformError):
        rank_of(change, 0, least=5, most=2)


def test_how_often_noise_alone_meets_a_condition():
    assert odds(1e-5, 0.01) == pytest.approx(1 / 2, abs=0.005)
    assert odds(0.05, 1e-9) == pytest.approx(1 / 12, abs=0.005)
    assert odds(0.0, 0.01, fall=0.02) == 0.0 and odds(0.0, 0.01, fall=0.005) == 1.0
    shares = [odds(one, 0.01) for one in (1e-4, 0.005, 0.01, 0.03, 0.1)]
    assert shares == sorted(shares, reverse=True)
    rng = np.random.default_rng(1)
    rule, met = HpTRule(2), []
    for step in range(4000):
        loss, change = 1 + 0.05 * rng.standard_normal(), 1 + 0.02 * rng.standard_normal()
        numbers = rule.end_window(Window(step, loss, change)).numbers
        if step >= 3:
            met.append((numbers["loss_test"], numbers["weight_test"]))
    found = np.mean(met, axis=0)
    assert found == pytest.approx([odds(0.05, 0.1), odds(0.02, 0.01)], abs=0.03)
    with pytest.raises(TierformError, match="fluctuation"):
        odds(-1.0, 0.1)


def test_the_journal_counts_the_windows_that_met_each_condition():
    rule, journal = HpTRule(2), Journal()
    assert journal.conditions() is None
    for step, (loss, change) in enumerate([(1.0, None), (0.95, 1.0), (0.92, 1.0), (0.91, 1.01), (0.5, 1.03)], 1):
        journal.decisions.append(rule.end_window(Window(step, loss, change)))
    assert journal.conditions() == {"windows": 2, "loss": 1, "weights": 2, "both": 1}
