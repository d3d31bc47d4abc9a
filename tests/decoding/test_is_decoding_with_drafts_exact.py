"""Does decoding with drafts give what plain decoding gives: the same text, or the same distribution?"""

from __future__ import annotations

import copy

import numpy as np
import pytest
from scipy.stats import chisquare

torch = pytest.importorskip("torch")

from tierform.decoding import acceptance  # noqa: E402
from tierform.decoding.acceptance import draw, overlap, verify  # noqa: E402
from tierform.decoding.drafts import ModelDraft, at_planes, read_draft, read_from_store, without_attention  # noqa: E402
from tierform.decoding.loop import Sampling, Stepper, generate  # noqa: E402
from tierform.errors import TierformError  # noqa: E402

SAMPLES = 20_000
DRAFTS = ("model", "planes:7", "skip:1-2", "lookup")


def _draft(kind, target, other):
    return ModelDraft.of(other) if kind == "model" else read_draft(kind, target, "")


@pytest.mark.parametrize("kind", DRAFTS)
def test_is_greedy_text_equal_on_a_hundred_prompts(target, other, kind):
    random = np.random.default_rng(3)
    draft = _draft(kind, target, other)
    drafted = 0
    for number in range(100):
        prompt = [int(one) for one in random.integers(0, 24, 6)]
        plain = generate(target, prompt, 8)
        fast = generate(target, prompt, 8, draft=draft, count=1 + number % 5)
        assert fast.tokens == plain.tokens or min(plain.margins) < 1e-4
        drafted += sum(fast.accepted)
    assert drafted > 20, "drafts must be accepted, or nothing is tested"


def _distributions(kind, target, other):
    """p (k + 1, vocabulary) and q by drafted path, for the drafts of two tokens after one prompt, from the models."""
    sampling, prompt = Sampling(1.0), [1, 5, 9, 1, 5]
    draft = _draft(kind, target, other)

    def after(model, tokens):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1:].float()
        return sampling.probabilities(logits)[0]

    def q_after(tokens):
        if kind == "lookup":
            found, chances = draft.propose(tokens, 1, sampling, np.random.default_rng(0))
            return chances[0] if found else None
        return after(draft.stepper.model, tokens)

    return prompt, (lambda tokens: after(target, tokens)), q_after


def _samples(kind, target, other, rule):
    """Two tokens of SAMPLES runs by drafting one token and verifying it with `rule`, then a plain second token."""
    prompt, p_after, q_after = _distributions(kind, target, other)
    random = np.random.default_rng(7)
    p, q = p_after(prompt), q_after(prompt)
    drafted = draw(np.repeat(q[None], SAMPLES, 0), random)
    second = np.stack([p_after([*prompt, token]) for token in range(24)])
    both = np.stack([np.repeat(p[None], SAMPLES, 0), second[drafted]], 1)
    found = rule(both, np.repeat(q[None, None], SAMPLES, 0), drafted[:, None], random)
    first = np.where(found.accepted == 1, drafted, found.following)
    then = np.where(found.accepted == 1, found.following, draw(second[first], random))
    return first, then, p, second


def _p_values(samples):
    first, then, p, second = samples
    pairs = np.bincount(first * 24 + then, minlength=576)
    expected = (p[:, None] * second).ravel() * SAMPLES
    order = np.argsort(expected)
    merged, counts, total, seen = [], [], 0.0, 0
    for place in order:  # cells of at least ten
        total += expected[place]
        seen += pairs[place]
        if total >= 10:
            merged.append(total), counts.append(seen)
            total, seen = 0.0, 0
    merged[-1] += total
    counts[-1] += seen
    merged = np.array(merged)
    return chisquare(counts, merged * (sum(counts) / merged.sum())).pvalue


@pytest.mark.parametrize("kind", DRAFTS)
def test_is_the_distribution_of_two_tokens_the_targets(target, other, kind):
    assert _p_values(_samples(kind, target, other, verify)) > 0.01


def _q_for_p(p, q, drafted, random):
    """The bug: a token is accepted with q's chances, as if they were the target's."""
    return verify(np.concatenate([q, p[:, -1:]], 1), q, drafted, random)


def _unscaled(monkeypatch):
    """The bug: the residual is not scaled to one, so that what is missing falls on the last token."""

    def drawn(p, random):
        points = random.random(len(p))[:, None]
        return np.minimum((np.cumsum(p, -1) <= points).sum(-1), p.shape[-1] - 1).astype(np.int64)

    monkeypatch.setattr(acceptance, "residual", lambda p, q: np.maximum(p - q, 0.0))
    monkeypatch.setattr(acceptance, "draw", drawn)


@pytest.mark.parametrize("kind", DRAFTS)
def test_does_the_chi_square_find_acceptance_with_q_for_p(target, other, kind):
    assert _p_values(_samples(kind, target, other, _q_for_p)) < 1e-6


@pytest.mark.parametrize("kind", DRAFTS)
def test_does_the_chi_square_find_a_residual_that_is_not_scaled(target, other, kind, monkeypatch):
    _unscaled(monkeypatch)
    assert _p_values(_samples(kind, target, other, verify)) < 1e-6


@pytest.mark.parametrize("kind", ["model", "lookup"])
def test_is_the_loop_itself_exact_when_it_samples(target, other, kind):
    """Second tokens of 1,000 runs of the whole loop against the target's own distribution."""
    prompt = [3, 1, 4, 3, 1]
    sampling = Sampling(1.0)
    draft = _draft(kind, target, other)
    counts = np.zeros(24)
    for number in range(1000):
        one = generate(target, prompt, 3, draft=draft, count=1, sampling=sampling, random=np.random.default_rng(number))
        counts[one.tokens[1]] += 1
    stepper = Stepper(target)
    first = sampling.probabilities(stepper.feed(prompt)[-1:])[0]
    second = np.zeros(24)
    for token in range(24):
        own = Stepper(target)
        second += first[token] * sampling.probabilities(own.feed([*prompt, token])[-1:])[0]
    small = second * 1000 < 8  # cells of at least eight
    rest = [small] if small.any() else []
    observed = np.array([*counts[~small], *(counts[one].sum() for one in rest)])
    expected = np.array([*second[~small], *(second[one].sum() for one in rest)]) * 1000
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 0.01


def test_is_the_counted_acceptance_the_overlap_of_the_distributions(target, other):
    random = np.random.default_rng(1)
    p, q = (random.dirichlet(np.full(24, 0.5)) for _ in range(2))
    drafted = draw(np.repeat(q[None], SAMPLES, 0), random)
    rows = np.repeat(np.stack([p, p])[None], SAMPLES, 0)
    found = verify(rows, np.repeat(q[None, None], SAMPLES, 0), drafted[:, None], random)
    assert found.accepted.mean() == pytest.approx(float(overlap(p, q)), abs=0.012)  # 3.5 standard errors


# -- drafts ------------------------------------------------------------------------------------------------------
def test_do_sixteen_planes_change_nothing_and_fewer_something(target):
    ids = torch.tensor([[1, 2, 3, 4]])
    held = copy.deepcopy(target)
    assert read_from_store(held, 16) > read_from_store(copy.deepcopy(target), 8) > 0
    with torch.inference_mode():
        exact, stored, few = (one(input_ids=ids).logits for one in (target, held, at_planes(target, "7")))
    assert (exact - stored).abs().max() < 0.05 < (exact - few).abs().max()


def test_does_a_draft_by_skipping_share_its_weights(target):
    made = without_attention(target, "1-2")
    own = {one.data_ptr() for one in target.parameters()}
    assert {one.data_ptr() for one in made.parameters()} <= own
    assert sum(one.numel() for one in made.parameters()) < sum(one.numel() for one in target.parameters())


def test_does_lookup_find_what_followed_the_longest_match(target):
    draft = read_draft("lookup", target, "")
    tokens, chances = draft.propose([5, 1, 2, 3, 9, 1, 2, 7, 1, 2, 3], 4, Sampling(), np.random.default_rng(0))
    assert tokens == [9, 1, 2, 7] and chances.shape == (4, 24) and (chances.sum(1) == 1).all()
    assert draft.propose([1, 2, 3], 4, Sampling(), np.random.default_rng(0))[0] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("skip:0-1", "first layer"), ("skip:7", "no such sublayer"), ("nothing:3", "no such draft")],
)
def test_are_drafts_that_cannot_be_refused(target, text, message):
    with pytest.raises(TierformError, match=message):
        read_draft(text, target, "")
