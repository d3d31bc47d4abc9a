"""One small file of every format, its requests derived by hand; and bad lines, refused with their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform.errors import TierformError
from tierform.serving.arrivals import Lengths, arrivals, generate, sessions
from tierform.serving.traces import load_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FILES = {
    "azure": AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:48.1805900,5,6\n",
    "azure-2024": AZURE + "2024-05-10 00:00:00.009930+00:00,374,44\n2024-05-10 00:00:01.509930+00:00,5,6\n",
    "plain": "arrival_s,prompt_tokens,output_tokens\n10,374,44\n11.5,5,6\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Log Type\n5,ChatGPT,374,44,x\n6.5,GPT-4,5,6,x\n",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n0,374,44\n1.5,5,6\n",
    "mooncake": (
        '{"timestamp": 27000, "input_length": 374, "output_length": 44, "hash_ids": [3]}\n'
        '{"timestamp": 28500, "input_length": 5, "output_length": 6, "hash_ids": [4]}\n'
    ),
    "llmservingsim": (
        '{"arrival_time_ns": 0, "input_toks": 374, "output_toks": 44, "input_tok_ids": [1, 2]}\n'
        '{"arrival_time_ns": 1500000000, "input_toks": 5, "output_toks": 6, "input_tok_ids": [1, 2, 3, 4, 5]}\n'
    ),
    "vllm-bench": '{"start_times": [7.0, 8.5], "input_lens": [374, 5], "output_lens": [44, 6], "model_id": "m"}\n',
}


@pytest.mark.parametrize("kind", FILES)
def test_is_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(FILES[kind])
    found = load_trace(path)
    assert found.arrival_ns.tolist() == [0, 1_500_000_000]
    assert found.prompt.tolist() == [374, 5]
    assert found.output.tolist() == [44, 6]


def test_is_a_bad_line_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,5,6\n1,-5,6\nsoon,5,6\n3,5\n")
    with pytest.raises(TierformError) as told:
        load_trace(path)
    assert {one.line for one in told.value.problems} == {3, 4, 5}


def test_is_an_unknown_file_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("when,what\n1,2\n")
    with pytest.raises(TierformError, match="no trace format"):
        load_trace(path)


def test_are_blocks_of_equal_beginnings_the_same(tmp_path: Path) -> None:
    """Two prompts share their first 512 tokens, 32 blocks of 16; the third has the second's ids in another order."""
    path = tmp_path / "trace.jsonl"
    path.write_text(
        "".join(
            f'{{"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": {ids}}}\n'
            for ids in ([1, 2], [1, 3], [3, 1])
        )
    )
    keys = load_trace(path).block_keys(16)
    first, second, third = (keys.keys[at : at + 2].tolist() for at in keys.at)
    assert keys.shift == 5 and keys.shared.tolist() == [64, 64, 64]
    assert first[0] == second[0] and first[1] != second[1]
    assert not {*third} & {*first, *second}


@pytest.mark.parametrize("pattern", ["poisson", "gamma", "bursts", "even"])
def test_is_the_rate_what_was_asked(pattern: str) -> None:
    times = arrivals(20.0, 20_000, pattern, seed=1)  # type: ignore[arg-type]
    assert len(times) / (times[-1] * 1e-9) == pytest.approx(20.0, rel=0.05)
    assert (times == arrivals(20.0, 20_000, pattern, seed=1)).all()  # type: ignore[arg-type]


def test_has_a_day_its_rate_over_a_whole_day() -> None:
    times = arrivals(0.5, 43_200, "diurnal", ratio=4.0, seed=1)
    assert times[-1] * 1e-9 == pytest.approx(86_400, rel=0.05)


def test_does_a_turn_say_again_what_was_said() -> None:
    made = sessions(1.0, 50, 4.0, 5.0, Lengths(32), Lengths(16), seed=2)
    assert (made.prompt % 48 == 32).all()  # a question after n turns of 48 tokens
    assert generate(5, 10, Lengths(7), Lengths(3)).prompt.tolist() == [7] * 10
