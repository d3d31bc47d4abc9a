"""How many experts does a pass touch where some are more popular than others?"""

from __future__ import annotations

from math import exp, log

import pytest

from tierform import Inference, Step, load_model
from tierform.workload import expand
from tierform.workload.expert_store import ExpertStore, popularity, store_of
from tierform.workload.families.qwen import EXPERT_DECAY
from tierform.workload.models import Model
from tierform.workload.task import SequenceGroup

QWEN = load_model("qwen3-30b-a3b")


def touched(model: Model, tokens: int, store: ExpertStore | None = None) -> int:
    task = Step(groups=(SequenceGroup(tokens, 1, 16),), experts=store)
    operators = [o for wave in expand(model, task).stages[0].waves for block in wave.blocks for o in block.operators]
    return sum(o.count for o in operators if o.weight == "ffn.experts.up" and o.m)


def test_nine_tenths_go_to_the_published_number() -> None:
    """65 of 128 experts; the continuous law has exactly that, its 128 steps one or two fewer."""
    shares = popularity(128, EXPERT_DECAY)
    total = sum(shares)
    reached = next(number for number in range(129) if sum(shares[:number]) >= 0.9 * total)
    assert 62 <= reached <= 65
    assert pytest.approx(65 / 128) == log(10) / EXPERT_DECAY


def test_fewer_experts_are_touched_than_under_even_routing() -> None:
    """Eight of 128 a token, drawn independently: 1 - (1 - 8 p)^tokens of each expert, summed by hand."""
    for tokens in (8, 32):
        weights = [exp(-EXPERT_DECAY * (place + 0.5) / 128) for place in range(128)]
        expected = sum(1 - (1 - 8 * weight / sum(weights)) ** tokens for weight in weights)
        assert touched(QWEN, tokens) == round(expected)
        assert expected < 128 * (1 - (1 - 8 / 128) ** tokens)


def test_given_popularity_goes_first() -> None:
    even = ExpertStore(routing=(1.0,) * 128)
    assert store_of(even, QWEN) is even
    assert touched(QWEN, 8, even) == round(128 * (1 - (1 - 8 / 128) ** 8))


def test_families_without_a_figure_stay_even() -> None:
    mixtral = load_model("mixtral-8x7b")
    assert mixtral.expert_decay == 0 and store_of(None, mixtral) is None
    assert touched(mixtral, 4) == round(8 * (1 - (1 - 2 / 8) ** 4))


def test_the_cache_has_the_popular_ones() -> None:
    """Of an exponential law with 4.5 the first half has 1 - exp(-4.5 / 2) of what all have, 1 - exp(-4.5)."""
    store = store_of(ExpertStore(cached=0.5), QWEN)
    assert store is not None and store.cached == 0.5
    law = (1 - exp(-EXPERT_DECAY / 2)) / (1 - exp(-EXPERT_DECAY))
    assert store.hits(128) == pytest.approx(law, rel=1e-3)
    notes = expand(QWEN, Inference(batch=1, sequence=8)).notes
    assert any("the family's published" in note for note in notes)
