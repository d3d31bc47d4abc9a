"""Is a point of a space of services what `serve` gives of it, and are mistakes of a service told with the others?"""

from __future__ import annotations

from pathlib import Path

import pytest

import tierform
from tierform.errors import TierformError
from tierform.exploration.evaluator import JobEvaluator
from tierform.exploration.evaluators import evaluator_of
from tierform.exploration.service_space import ServiceEvaluator
from tierform.exploration.space_file import load_space
from tierform.exploration.study import explore
from tierform.exploration.winners import verify, write_winners
from tierform.serving.arrivals import Lengths, generate
from tierform.serving.engine import Engine, load_engine
from tierform.serving.slo import parse_slo

SPACE = """\
schema: tierform.space/1
job: {model: llama-3.2-1b, chip: a100}
service:
  rate: 60
  requests: 40
  prompt: 128
  output: 32
  slo: ttft=0.1s,tpot=20ms
  engine: {max_model_len: 512, max_num_batched_tokens: 512}
parameters:
  batch: {path: service.engine.max_num_seqs, values: [1, 16]}
  replicas: {path: service.replicas, values: [1, 2]}
objectives: [{goodput_per_s: most}, chips]
limits: {ttft_p99: 10 s}
"""


def test_is_a_point_the_service_that_serve_runs(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    made = explore(tmp_path / "space.yaml", study=tmp_path / "s.db")
    rows = {(row.chosen["batch"], row.chosen["replicas"]): row.outcome.figures for row in made.base.rows()}
    assert len(rows) == 4 and made.claim().startswith("enumerated")
    requests = generate(60, 40, Lengths(128), Lengths(32), seed=0)
    for (batch, replicas), figures in rows.items():
        service = tierform.serve(
            "llama-3.2-1b",
            "a100",
            requests,
            engine=Engine(max_model_len=512, max_num_batched_tokens=512, max_num_seqs=int(str(batch))),
            replicas=int(str(replicas)),
            slo=parse_slo("ttft=0.1s,tpot=20ms"),
        )
        told = service.to_dict()
        assert figures["goodput_per_s"] == told["goodput_per_s"]
        assert figures["ttft_p99"] == told["ttft_s"]["p99"]  # type: ignore[index]
        assert figures["chips"] == replicas
    # One request at a time keeps nobody's time at this rate.
    assert rows[16, 1]["goodput_per_s"] > rows[1, 1]["goodput_per_s"]
    assert rows[1, 2]["within_slo"] >= rows[1, 1]["within_slo"]
    assert made.best("goodput_per_s").chosen["batch"] == 16
    (path, *_) = write_winners(made, tmp_path / "winners")
    assert load_engine(path).max_model_len == 512
    with pytest.raises(TierformError, match="cycle"):
        verify(made, made.front())


def test_are_mistakes_of_a_service_told_with_their_lines(tmp_path: Path) -> None:
    wrong = SPACE.replace("max_num_seqs", "max_num_seq").replace("  rate: 60", "  rates: 60")
    wrong = wrong.replace("goodput_per_s", "goodput_per").replace("ttft_p99", "latency_s")
    (tmp_path / "space.yaml").write_text(wrong)
    with pytest.raises(TierformError) as caught:
        load_space(tmp_path / "space.yaml")
    told = {(problem.line, problem.nearest) for problem in caught.value.problems}
    assert told >= {(4, "rate"), (11, "max_num_seqs"), (13, "goodput_per_s")}
    assert 14 in {line for line, _ in told}


def test_are_points_without_a_service_jobs(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    space = load_space(tmp_path / "space.yaml")
    assert isinstance(evaluator_of(space), ServiceEvaluator)
    with pytest.raises(TierformError, match="services, not jobs"):
        JobEvaluator(space).result(next(iter(space.every())))
