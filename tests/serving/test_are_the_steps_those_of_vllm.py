"""The first steps of three schedulers that ran for real on a virtual clock, number by number.

vLLM 0.19.0's scheduler on the first requests of the Azure conversations of 2023 at eight times the load (Azure/
AzurePublicDataset, CC-BY-4.0) and of Mooncake's conversations (kvcache-ai/Mooncake, Apache-2.0), and vidur's orca
policy on the former.  A step takes 4,000,000 + 20,000 T + 20 D + 3 P // 5 nanoseconds.  The files hold the steps that
began before the first request that is left out arrived.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from compiled import run_compiled, steps_of

from tierform.serving.engine import Engine
from tierform.serving.requests import Content, Requests
from tierform.serving.traces import load_trace
from tierform.validation import serving

FOLDER = Path(serving.__file__).parent / "tables" / "serving"


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open() as opened:
        return list(csv.DictReader(opened))


def _requests(name: str, content: Content | None = None) -> Requests:
    rows = _rows(f"{name}.requests")
    columns = [np.array([int(one[key]) for one in rows]) for key in ("arrival_ns", "prompt", "output")]
    return Requests(*columns, content=content)


def _prefills(text: str) -> tuple[tuple[int, int, int], ...]:
    parts = [one.replace("@", ":").split(":") for one in text.split()]
    return tuple((int(a), int(float(b)), int(float(c))) for a, b, c in parts)


def _hold(name: str, requests: Requests, engine: Engine) -> None:
    wanted = [
        (
            int(one["start_ns"]),
            int(one["duration_ns"]),
            int(one["tokens"]),
            int(one["single_token_entries"]),
            int(one["sum_context_single"]),
            _prefills(one["prefill_entries"]),
            tuple(int(each) for each in one["preempted"].split()),
            int(one["free_blocks"]),
            int(one["running"]),
            int(one["waiting"]),
        )
        for one in _rows(f"{name}.batches")
    ]
    found = steps_of(run_compiled(requests, engine))[: len(wanted)]
    assert found == wanted
    assert any(one[6] for one in wanted)  # somebody was preempted


def test_are_they_with_a_small_cache_and_preemptions() -> None:
    engine = Engine(
        num_gpu_blocks=2588,
        max_num_seqs=128,
        max_num_batched_tokens=2048,
        max_model_len=32768,
        enable_prefix_caching=False,
        async_scheduling=False,
    )
    _hold("vllm019-azure-conv", _requests("vllm019-azure-conv"), engine)


def test_are_they_with_a_prefix_cache() -> None:
    engine = Engine(num_gpu_blocks=16000, max_num_seqs=64, max_num_batched_tokens=8192, async_scheduling=False)
    content = load_trace(FOLDER / "vllm019-mooncake-conv.hash_ids.jsonl").first(40).content
    _hold("vllm019-mooncake-conv", _requests("vllm019-mooncake-conv", content), engine)


def test_are_they_those_of_orca() -> None:
    """Orca reserves 16,384 tokens for everybody: five requests in 6,000 blocks."""
    rows = _rows("vidur-orca-azure-conv400.requests")
    requests = Requests(
        np.array([round(float(one["arrival_s"]) * 1e9) for one in rows]),
        np.array([int(float(one["prompt"])) for one in rows]),
        np.array([int(float(one["output"])) for one in rows]),
    )
    engine = Engine(
        num_gpu_blocks=6000,
        max_num_seqs=128,
        max_model_len=16384,
        enable_prefix_caching=False,
        async_scheduling=False,
        scheduler="orca",
    )
    wanted = [
        (
            int(float(one["duration_ns"])),
            int(float(one["tokens"])),
            int(float(one["single_token_entries"])),
            int(float(one["sum_context_single"])),
            _prefills(one["prefill_entries"]),
        )
        for one in _rows("vidur-orca-azure-conv400.batches")
    ]
    found = steps_of(run_compiled(requests, engine))[: len(wanted)]
    assert [one[1:6] for one in found] == wanted
