"""Does the view of a serving run hold what its requests say: sums over pieces, waits, shares, a queue that grows?"""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from tierform.report.load_search import LoadSearch
from tierform.report.service_view import GROWS, PIECES, load_point, service_content, service_view, spread
from tierform.serving.engine import Engine
from tierform.serving.find import highest_load
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests
from tierform.serving.serve import serve
from tierform.serving.service import Service
from tierform.serving.slo import Slo
from tierform.workload import load_model

# A step takes 10 ms and 0.1 ms a token; 2 J a step and 1 mJ a token.
ORACLE = FormulaOracle(10_000_000, 100_000, components=("chip",), joules=((2.0, 1e-3, 0.0, 0.0),))
ENGINE = Engine(num_gpu_blocks=400, max_num_seqs=4, max_model_len=1024)
SLO = Slo(ttft=0.5, tpot=0.05)


def served(gap_ms: int, number: int = 120, record: bool = True) -> Service:
    """Requests of 16 tokens with answers of 8, so many milliseconds apart, on a batch of four at most."""
    arrival = np.arange(number, dtype=np.int64) * gap_ms * 1_000_000
    requests = Requests(arrival, np.full(number, 16), np.full(number, 8))
    model = load_model("llama-3.1-8b")
    return serve(model, "h100", requests, engine=ENGINE, oracle=ORACLE, slo=SLO, record=record, runtime="ideal")


@pytest.fixture(scope="module")
def calm() -> Service:
    return served(100)


@pytest.fixture(scope="module")
def crowded() -> Service:
    return served(5)


def total(view: dict[str, object], name: str) -> float:
    over = view["over_time"]
    assert isinstance(over, dict)
    return float(np.sum(over[name])) * over["end_s"] / PIECES


def test_is_an_amount_spread_as_by_hand() -> None:
    edges = np.array([0.0, 1.0, 2.0, 4.0])
    # 6 from 0.5 to 3.5 is 2 a second: 1, 2, 3.  4 at the instant 1.5 falls into the second piece.
    found = spread(np.array([0.5, 1.5]), np.array([3.5, 1.5]), np.array([6.0, 4.0]), edges)
    assert found == pytest.approx([1.0, 6.0, 3.0])


@pytest.mark.parametrize("seed", range(5))
def test_does_spreading_lose_nothing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    begin = draw.uniform(0, 9, 300)
    end = begin + draw.choice([0.0, 1e-6, 0.3, 0.9], 300)
    amount = draw.uniform(0, 5, 300)
    edges = np.linspace(0, 10, 97)
    found = spread(begin, end, amount, edges)
    assert found.sum() == pytest.approx(amount.sum(), rel=1e-6)
    slow = [
        sum(
            w * (float(a <= x < b) if f == x else max(0.0, min(f, b) - max(x, a)) / (f - x))
            for x, f, w in zip(begin, end, amount, strict=True)
        )
        for a, b in pairwise(edges)
    ]
    assert found == pytest.approx(slow, abs=1e-4)


@pytest.mark.parametrize("which", ["calm", "crowded"])
def test_do_pieces_sum_to_the_run(which: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(which)
    view = service_view(service)
    assert total(view, "arrivals_per_s") == pytest.approx(len(service), rel=1e-4)
    assert total(view, "finished_per_s") == pytest.approx(int(service.finished.sum()), rel=1e-4)
    assert total(view, "output_tokens_per_s") == pytest.approx(service.output_tokens, rel=1e-4)
    assert total(view, "waiting") == pytest.approx(float(np.nansum(service.array("queue_s"))), rel=1e-3, abs=1e-6)
    ran = service.array("last_token_s") - service.array("scheduled_s")
    assert total(view, "running") == pytest.approx(float(ran.sum()), rel=1e-3)
    assert total(view, "power_W") == pytest.approx(service.energy_J, rel=1e-3)
    assert total(view, "busy_share") == pytest.approx(float(service.array_of("busy_s").mean()), rel=1e-3)


def test_are_shares_and_promises_those_of_the_requests(crowded: Service) -> None:
    view = service_view(crowded)
    shares, keeps = view["shares"], view["keeps"]
    assert isinstance(shares, dict) and isinstance(keeps, dict)
    waits = np.sort(crowded.array("ttft_s"))
    assert shares["ttft_s"][0] == pytest.approx(waits[0], rel=1e-4)
    assert shares["ttft_s"][50] == pytest.approx(float(np.median(waits)), rel=1e-4)
    assert shares["ttft_s"][100] == pytest.approx(waits[-1], rel=1e-4)
    assert keeps["ttft_s"] == pytest.approx(float((waits <= 0.5).mean()))
    assert keeps["e2e_s"] is None and view["slo"] == {"ttft_s": 0.5, "tpot_s": 0.05, "e2e_s": None}


def test_does_a_queue_grow_only_where_more_comes_than_is_done(calm: Service, crowded: Service) -> None:
    # Eight steps of some 10.4 ms for four requests at once: 48 a second are done, 200 come.
    found = service_view(crowded)["arrivals"]
    assert isinstance(found, dict)
    assert found["grows"] is True and found["rate_per_s"] == pytest.approx(120 / 0.595)
    waiting = int((crowded.array("scheduled_s") > 0.595).sum())
    assert found["waiting_at_last"] == waiting > GROWS * 60
    idle = service_view(calm)["arrivals"]
    assert isinstance(idle, dict) and idle["grows"] is False and idle["waiting_at_last"] == 0


def test_is_what_was_not_recorded_left_out() -> None:
    over = service_view(served(100, 20, record=False))["over_time"]
    assert isinstance(over, dict)
    assert over["kv_share"] is None and over["power_W"] is None and sum(over["running"]) > 0


def test_is_the_content_plain_and_small(crowded: Service) -> None:
    content = service_content(crowded)
    text = json.dumps(content, allow_nan=False)
    assert len(text) < 60_000
    assert content["schema"] == "tierform.service/1" and json.loads(text)["view"]["schema"] == "tierform.service_view/1"
    point = load_point(crowded, 2.0, 200.0)
    assert point["grows"] is True and point["within"] == crowded.to_dict()["within_slo"]


def test_is_a_run_a_line_and_a_card(crowded: Service) -> None:
    assert repr(crowded) == "<Service: llama-3.1-8b on 1 x h100, 120 of 120 requests served>"
    text = crowded._repr_html_()
    assert "first token" in text and "within ttft 0.5 s, tpot 0.05 s" in text and "<script" not in text
    assert f"{crowded.good.mean():.1%}" in text


def test_is_a_search_for_the_highest_load_kept_whole() -> None:
    number = 60
    requests = Requests(np.arange(number, dtype=np.int64) * 100_000_000, np.full(number, 16), np.full(number, 8))
    model, search = load_model("llama-3.1-8b"), LoadSearch(requests, 0.9)
    seen: list[int] = []

    def run(some: Requests) -> Service:
        return serve(model, "h100", some, engine=ENGINE, oracle=ORACLE, slo=SLO, record=True, runtime="ideal")

    best, tried = highest_load(search.follow(run, lambda count, _: seen.append(count)), requests, 0.9)
    content = json.loads(json.dumps(search.content(best), allow_nan=False))
    assert best is not None and content["best"]["offered_per_s"] == best.offered_per_s
    offered = [one["offered_per_s"] for one in content["tried"]]
    assert offered == pytest.approx([one.offered_per_s for one in tried], rel=1e-6)
    assert [one["within"] for one in content["tried"]] == [one.within for one in tried]
    assert content["tried"][0]["factor"] == pytest.approx(tried[0].factor)
    assert content["service"]["within_slo"] == best.within and content["view"]["over_time"]["pieces"] == PIECES
    assert seen == list(range(1, len(tried) + 1))
    nothing = LoadSearch(requests, 0.9).content(None)
    assert nothing["best"] is None and nothing["service"] is None and nothing["tried"] == []
