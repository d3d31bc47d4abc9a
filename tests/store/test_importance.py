"""Are budgets met exactly, do bits go where they help, and does the running model compute with those very weights?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.store.importance import (
    Group,
    PrecisionTrace,
    allocate,
    allocate_steps,
    fit_predictor,
    gains_per_bit,
)

ERROR = 0.3 * 0.25 ** np.arange(9)  # 4 to 12 bits


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(0, 999), st.floats(4, 12))
def test_equal_groups_spend_the_whole_budget(groups: int, seed: int, average: float) -> None:
    importance = np.random.default_rng(seed).lognormal(0, 3, groups)
    bits = allocate(importance, np.full(groups, 512), ERROR, 4, average)
    assert (
        bits.sum() == int(np.floor(average * groups + 1e-9)) or abs(average * groups - round(average * groups)) < 1e-5
    )
    assert bits.min() >= 4 and bits.max() <= 12
    order = np.argsort(importance)
    assert (np.diff(bits[order].astype(int)) >= 0).all()  # the more important never gets fewer


def test_unequal_groups_leave_less_than_one_groups_bit() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 20, 40) * 512
    bits = allocate(rng.lognormal(0, 2, 40), sizes, ERROR, 4, 6.37)
    left = int(6.37 * sizes.sum()) - int((bits * sizes).sum())
    assert 0 <= left < sizes[bits < 12].min()


def test_greedy_is_the_best_of_all_allocations() -> None:
    """Against every allocation of a small case."""
    from itertools import product

    rng = np.random.default_rng(1)
    for _ in range(10):
        importance = rng.lognormal(0, 2, 4)
        bits = allocate(importance, np.full(4, 512), ERROR[:5], 4, 5.5)
        cost = (importance * ERROR[bits - 4]).sum()
        every = [c for c in product(range(5), repeat=4) if sum(c) == 6]
        assert cost <= min((importance * ERROR[list(c)]).sum() for c in every) * (1 + 1e-12)


def test_a_pair_of_steps_that_pays_together_is_taken_together() -> None:
    """The measured errors of fp16 at 4 to 7 bits: the fifth bit gains less than the sixth."""
    error = np.array([0.2835, 0.1860, 0.0537, 0.0120])
    assert allocate(np.array([4.0, 1.0]), np.array([512, 512]), error, 4, 5).tolist() == [6, 4]
    assert allocate_steps(np.array([[4.0, 1.0]]), error, 4, 10).tolist() == [[6, 4]]


def test_every_step_spends_the_same() -> None:
    importance = np.random.default_rng(2).lognormal(0, 3, (200, 16))
    importance[:, 3] = 0
    bits = allocate_steps(importance, ERROR, 4, 100)
    assert (bits.sum(axis=1) == 100).all() and bits.min() >= 4 and bits.max() <= 12
    same = allocate_steps(importance[:1], ERROR, 4, 100)[0]
    assert (same == allocate(importance[0], np.full(16, 1), ERROR, 4, 100 / 16)).all()
    assert (allocate_steps(np.zeros((2, 4)), ERROR, 4, 19).sum(axis=1) == 19).all()
    assert (allocate_steps(importance, ERROR, 4, 64) == 4).all()


def test_gains_follow_the_hull() -> None:
    np.testing.assert_allclose(gains_per_bit(np.array([0.28, 0.18, 0.05, 0.01])), [0.115, 0.115, 0.04])
    np.testing.assert_allclose(gains_per_bit(ERROR), -np.diff(ERROR))
    assert (gains_per_bit(np.array([1.0, 1.0, 2.0])) == 0).all()


@pytest.mark.parametrize("average", [3.9, 12.1, float("nan")])
def test_budgets_outside_the_levels_are_refused(average: float) -> None:
    with pytest.raises(TierformError, match="4 to 12"):
        allocate(np.ones(3), np.ones(3), ERROR, 4, average)
    with pytest.raises(TierformError, match="importance"):
        allocate(np.array([1.0, np.nan]), np.ones(2), ERROR, 4, 6)


def test_a_trace_adds_up() -> None:
    groups = (Group(0, "fc1", 0, 512), Group(0, "fc1", 1, 1536))
    trace = PrecisionTrace(groups, np.array([[4, 8], [8, 4]], np.uint8), 16)
    assert trace.average_bits == pytest.approx(6.0)
    assert trace.weights_by_bits() == {4: 1024.0, 8: 1024.0}
    assert trace.rows()[1] == (0, 0, "fc1", 1, 8)


def test_the_predictor_finds_a_low_rank_law_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((3000, 24))
    law = rng.standard_normal((24, 2)) @ rng.standard_normal((2, 10))
    activity = np.exp(0.3 * inputs @ law + 0.05 * rng.standard_normal((3000, 10)))
    predictor, explained = fit_predictor(inputs, activity, rank=2)
    assert explained > 0.95 and predictor.down.shape == (24, 2)
    assert fit_predictor(inputs, activity, rank=1)[1] < explained
    assert fit_predictor(inputs, np.exp(rng.standard_normal((3000, 10))), rank=2)[1] < 0.05


@pytest.fixture(scope="module")
def planed(tmp_path_factory):
    pytest.importorskip("transformers")
    from tierform.store.language_model import PlanedModel
    from tierform.store.small_model import SmallModel, train_small

    text = b"a small text that says the same small thing again and again, in a small way. " * 30
    model = train_small(text, text[:600], SmallModel(width=64, layers=2, heads=2, context=32, steps=20, batch=4))
    return PlanedModel(model, tmp_path_factory.mktemp("lm") / "m.tfs", 4, 12)


def test_the_model_computes_with_the_stores_weights(planed) -> None:
    """Uniform precision by the mixed product equals the plain model with weights read at that precision."""
    import torch

    import tierform.store as store
    from tierform.store.policies import Policy

    exact = planed.perplexity(4)
    policy = Policy("uniform", planed, 6)
    mixed = policy.perplexity(4)
    kept = {site.name: site.linear.weight.detach().clone() for site in planed.sites}
    with store.open(planed.path) as opened:
        for site in planed.sites:
            weight = torch.from_numpy(opened.read(site.name, 6).astype(np.float32))
            site.linear.weight.data = weight.T.contiguous() if site.by_columns else weight
    plain = planed.perplexity(4)
    for site in planed.sites:
        site.linear.weight.data = kept[site.name]
    assert mixed == pytest.approx(plain, rel=1e-5) and mixed != exact
    assert planed.perplexity(4) == exact


def test_each_token_uses_its_own_precision(planed) -> None:
    import torch

    site = next(one for one in planed.sites if one.kind == "fc2")
    rows = next(one for one in planed.sites if one.kind == "fc1")
    torch.manual_seed(0)
    for one in (site, rows):
        inputs = torch.randn(5, one.linear.in_features)
        bits = torch.randint(4, 13, (5, one.count))
        got = one.product(inputs, bits, planed.lowest)
        for token in range(5):
            weight = torch.empty_like(one.levels[0])
            for group in range(one.count):
                span = slice(group * one.group_width, (group + 1) * one.group_width)
                part = one.levels[bits[token, group] - planed.lowest]
                if one.by_columns:
                    weight[:, span] = part[:, span]
                else:
                    weight[span] = part[span]
            expected = torch.nn.functional.linear(inputs[token], weight, one.linear.bias)
            torch.testing.assert_close(got[token], expected, rtol=1e-4, atol=1e-5)


def test_policies_read_equal_bytes_and_say_so(planed) -> None:
    from tierform.store.language_model import calibrate
    from tierform.store.policies import KINDS, Policy, Predictors

    calibration = calibrate(planed, 6)
    predictors = Predictors(planed, calibration, rank=4)
    for kind in KINDS:
        policy = Policy(kind, planed, 6, calibration, predictors)
        assert policy.perplexity(2) > 1
        trace = policy.trace()
        sizes = [group.weights for group in trace.groups]
        assert len(set(sizes)) == 1
        assert (trace.bits.astype(int).sum(axis=1) == 6 * len(sizes)).all()  # every token, exactly
        if kind in ("uniform", "static"):
            assert (trace.bits == trace.bits[0]).all()
    assert planed.bytes_for(np.full(len(planed.groups), 6, np.uint8)) == 6 * sum(sizes) // 8
    with pytest.raises(TierformError, match="whole number"):
        Policy("uniform", planed, 6.5)
    with pytest.raises(TierformError, match="calibration"):
        Policy("static", planed, 6)


def test_training_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tierform.store.small_model import SmallModel, train_small

    text = b"one two three four five six seven eight nine ten. " * 12
    made = SmallModel(width=32, layers=1, heads=2, context=16, steps=3, seed=7)
    models = [train_small(text, text, made) for _ in range(2)]
    for a, b in zip(*(one.model.parameters() for one in models), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(TierformError, match="too short"):
        train_small(b"short", b"short", made)


def test_a_kept_model_is_the_trained_one_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tierform.store.small_model import SmallModel, trained_small

    text = b"one two three four five six seven eight nine ten. " * 12
    made = SmallModel(width=32, layers=1, heads=2, context=16, steps=3)
    first, found = trained_small(text, text, made, tmp_path)
    (kept,) = tmp_path.glob("*.tfs")
    again, found_again = trained_small(text, text, made, tmp_path)
    assert (found, found_again) == (False, True)
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    kept.write_bytes(kept.read_bytes()[:-8])
    assert trained_small(text, text, made, tmp_path)[1] is False and trained_small(text, text, made, tmp_path)[1]
    assert (
        trained_small(text, text, SmallModel(width=32, layers=1, heads=2, context=16, steps=3, seed=1), None)[1]
        is False
    )
    assert len(list(tmp_path.glob("*.tfs"))) == 1


def test_lots_keep_the_mix_and_lose_the_order(planed) -> None:
    from tierform.store.language_model import calibrate
    from tierform.store.policies import Policy

    calibration = calibrate(planed, 4)
    static, lots = (Policy(kind, planed, 6.3, calibration).whole for kind in ("static", "shuffled"))
    assert sorted(static) == sorted(lots) and (static != lots).any()
    assert (Policy("shuffled", planed, 6.3, calibration, seed=1).whole != lots).any()
