"""Decoding of SmolLM2-135M with drafts and cache policies on this machine's processor, one thread, processor time.

    tierform models get smollm2-135m
    python benchmarks/decoding_smollm2.py TEXT [--part exact|speed|policies|skips|planes] [--json FILE]

TEXT is a text of at least 20,000 tokens (WikiText-2's test text was used).  Prompts are its sentences.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tierform.compression.checkpoints.folder import load_language_model
from tierform.compression.quality import window_losses
from tierform.compression.sites import anatomy
from tierform.compression.skipping import choose_skips
from tierform.compression.text import windows_of
from tierform.decoding.drafts import read_draft, read_from_store, without_attention
from tierform.decoding.loop import Sampling, generate
from tierform.decoding.measure import best_count, pass_times, predicted_acceptance, tokens_per_s
from tierform.decoding.policies import NarrowCache, perplexities
from tierform.workload.kv_policy import KVPolicy

DRAFTS = ("lookup", "planes:9", "skip:24-28")


def prompts_of(path: Path, tokenizer: Any, count: int, length: int = 32) -> list[list[int]]:
    """Windows of a text, apart from each other."""
    ids = tokenizer(path.read_text()[: count * length * 60])["input_ids"]
    step = len(ids) // count
    return [ids[number * step : number * step + length] for number in range(count)]


def exact(model: Any, prompts: list[list[int]], out: dict[str, Any]) -> None:
    """Greedy text with each draft against plain decoding."""
    plain = [generate(model, prompt, 16) for prompt in prompts]
    for name in DRAFTS:
        draft, same, ties = read_draft(name, model, ""), 0, 0
        for prompt, one in zip(prompts, plain, strict=True):
            draft.keep(0)
            fast = generate(model, prompt, 16, draft=draft, count=4)
            same += fast.tokens == one.tokens
            ties += fast.tokens != one.tokens and min(one.margins) < 1e-3
        out[f"exact {name}"] = {"prompts": len(prompts), "equal": same, "ties": ties}
        print(name, out[f"exact {name}"], flush=True)


def speed(model: Any, prompts: list[list[int]], out: dict[str, Any], new: int, counts: list[int]) -> None:
    """Tokens a second and acceptance, measured and predicted, for each number of drafted tokens."""
    sampling = Sampling()
    plain = [generate(model, prompt, new) for prompt in prompts]
    base = sum(len(one.tokens) - 1 for one in plain) / sum(one.seconds for one in plain)
    for name in DRAFTS:
        draft = read_draft(name, model, "")
        texts = [(prompt, one.tokens) for prompt, one in zip(prompts, plain, strict=True)]
        acceptance = predicted_acceptance(model, draft, texts, sampling)
        draft.keep(0)
        times = pass_times(model, draft, (prompts[0] * 2)[: len(prompts[0]) + new // 2], sampling)
        rows = {}
        for count in counts:
            found = []
            for prompt in prompts:
                draft.keep(0)
                found.append(generate(model, prompt, new, draft=draft, count=count))
            rate = sum(len(one.tokens) - 1 for one in found) / sum(one.seconds for one in found)
            tried, kept = sum(sum(one.tried) for one in found), sum(sum(one.accepted) for one in found)
            rows[count] = {
                "measured": rate,
                "predicted": tokens_per_s(times, acceptance, count),
                "speedup": rate / base,
                "counted": kept / tried if tried else 0.0,
            }
            print(name, count, rows[count], flush=True)
        out[f"speed {name}"] = {
            "plain": base,
            "acceptance": acceptance,
            "chosen": best_count(times, acceptance),
            "verify_s": times.verify_s,
            "draft_s": times.draft_s,
            "rows": rows,
        }


def policies(model: Any, windows: torch.Tensor, out: dict[str, Any]) -> None:
    """Perplexity with half the cache, and with four bits."""
    half = windows.shape[1] // 2
    cases: dict[str, dict[str, Any]] = {
        "whole": {},
        "window + 4 sinks, half": {"policy": KVPolicy(window=half - 4, sinks=4)},
        "window alone, half": {"policy": KVPolicy(window=half)},
        "int4, keys by channel": {"narrow": NarrowCache(4, 64)},
        "int4, keys by channel, groups of 32": {"narrow": NarrowCache(4, 32)},
        "int4, keys by token": {"narrow": NarrowCache(4, 64, by_channel=False)},
    }
    for name, given in cases.items():
        each = [perplexities(model, one[None], **given) for one in windows]
        out[f"perplexity {name}"] = float(np.exp(np.log(each).mean()))
        ratios = np.array(each) / np.array(out.setdefault("whole, by window", each))
        out[f"perplexity {name}, by window"] = ratios.tolist()
        print(name, out[f"perplexity {name}"], "median ratio", float(np.median(ratios)), ratios.round(3), flush=True)


def skips(model: Any, learn: torch.Tensor, test: torch.Tensor, out: dict[str, Any], by: str) -> None:
    """Perplexity without five and ten attention sublayers: chosen by calibration, and the last ones."""
    layers = len(anatomy(model).layers)
    for count in (5, 10):
        chosen = choose_skips(model, learn, count, by=by, kinds=("attention",))
        numbers = sorted(int(name.split(".")[-2]) for name in chosen)
        cases = {"chosen": numbers, "last": list(range(layers - count, layers))}
        found = {}
        for name, these in cases.items():
            reduced = without_attention(model, ",".join(map(str, these)))
            found[name] = float(np.exp(window_losses(reduced, test).mean()))
        out[f"skip {count}"] = {**found, "layers": numbers, "ratio": found["last"] / found["chosen"]}
        print(count, out[f"skip {count}"], flush=True)


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--part", action="append", choices=["exact", "speed", "policies", "skips"])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--counts", default="1,2,3,4,5,6")
    parser.add_argument("--skip-by", default="cosine", choices=["cosine", "loss"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_language_model("smollm2-135m")
    read_from_store(model, 16)
    out: dict[str, Any] = {}
    parts = given.part or ["exact", "speed", "policies", "skips"]
    windows = windows_of(given.text, tokenizer, 2 * given.windows, given.length)
    if "policies" in parts:
        policies(model, windows[: given.windows], out)
    if "skips" in parts:
        half = windows[:, : given.length // 2]
        skips(model, half[given.windows :], half[: given.windows], out, given.skip_by)
    if "exact" in parts:
        exact(model, prompts_of(given.text, tokenizer, given.prompts), out)
    if "speed" in parts:
        prompts = prompts_of(given.text, tokenizer, min(given.prompts, 6))
        speed(model, prompts, out, given.new, [int(one) for one in given.counts.split(",")])
    if given.json:
        given.json.write_text(json.dumps(out, indent=1))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
