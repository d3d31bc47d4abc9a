"""Are the fewest copies found that keep an SLO, for every chip, split and batch, and ordered by what they cost?"""

from __future__ import annotations

import numpy as np

from tierform.serving.engine import Engine
from tierform.serving.find import cheapest
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests
from tierform.serving.serve import serve
from tierform.serving.service import Service
from tierform.serving.slo import Slo

# A step takes 10 ms and 1 J, whatever is in it.
ORACLE = FormulaOracle(step_ns=10_000_000, token_ns=0, components=("gpu",), joules=((1.0, 0.0, 0.0, 0.0),))
REQUESTS = Requests(np.zeros(16, int), np.full(16, 4), np.full(16, 10))


def _run(chip: str, tensor: int, sequences: int, replicas: int) -> Service:
    engine = Engine(num_gpu_blocks=500, max_num_seqs=sequences, async_scheduling=False)
    slo = Slo(e2e=0.25)
    return serve("gpt2", chip, REQUESTS, engine=engine, replicas=replicas, oracle=ORACLE, slo=slo)


def test_is_it_with_the_fewest_copies_and_the_least_cost() -> None:
    """Sixteen requests of ten steps in 0.25 s: two turns at most, so 16 / (2 * 2) copies of 2 at a time, or one of 8.

    Each turn of a copy takes ten steps: 4 copies * 2 turns * 10 J = 80 J, against 2 turns * 10 J = 20 J (and idling).
    """
    found = cheapest([("h100", 1, 2), ("h100", 1, 8)], _run, lambda _: 1e-4, 1.0)
    assert [(one.sequences, one.replicas) for one in found] == [(8, 1), (2, 4)]
    assert [sum(one.service.energy_J_by_component.values()) for one in found] == [20.0, 80.0]
    assert found[0].cost < found[1].cost


def test_does_a_price_decide_and_a_limit_of_copies_hold() -> None:
    found = cheapest([("h100", 1, 8), ("l40s", 1, 8)], _run, lambda _: 1e-4, 1.0, {"h100": 3.0, "l40s": 1.0})
    assert [one.chip for one in found] == ["l40s", "h100"] and found[0].cost == 1.0
    assert not cheapest([("h100", 1, 2)], _run, lambda _: 1e-4, 1.0, most=2)
