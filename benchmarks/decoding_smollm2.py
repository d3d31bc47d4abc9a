"""Decoding of SmolLM2-135M with drafts and cache policies on this machine's processor, one thread, processor time.

    tierform models get smollm2-135m
    python benchmarks/decoding_smollm2.py TEXT [--part exact|sampling|steps|speed|policies|context|skips] [--json FILE]

TEXT is a text of at least 20,000 tokens (WikiText-2's test text was used).  Prompts are windows of it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import chisquare

from tierform.compression.checkpoints.folder import load_language_model, model_folder
from tierform.compression.quality import window_losses
from tierform.compression.sites import anatomy
from tierform.compression.skipping import choose_skips
from tierform.compression.text import windows_of
from tierform.decoding.acceptance import draw, verify
from tierform.decoding.drafts import ModelDraft, read_draft, read_from_store, without_attention
from tierform.decoding.foreseen import foresee
from tierform.decoding.loop import Draft, Sampling, Stepper, generate
from tierform.decoding.measure import PassTimes, chances_of, fed_s, pass_times
from tierform.decoding.policies import NarrowCache, choose_heads, mask_of, perplexities
from tierform.decoding.reference_step import (
    TYPES,
    in_step,
    measure_rounds,
    reference_decoder,
    reference_steps,
    simulated_steps,
)
from tierform.workload import load_model
from tierform.workload.kv_policy import KVPolicy

MODEL = "smollm2-135m"
PARTS = ("exact", "sampling", "steps", "speed", "policies", "context", "skips")
DRAFTS = ("lookup", "planes:9", "skip:24-28")
SAMPLES, FIRST, WORDS = 20_000, 24, 1000


def prompts_of(path: Path, tokenizer: Any, count: int, length: int = 32) -> list[list[int]]:
    """Windows of a text, apart from each other."""
    ids = tokenizer(path.read_text()[: count * length * 60])["input_ids"]
    step = len(ids) // count
    return [ids[number * step : number * step + length] for number in range(count)]


def exact(model: Any, prompts: list[list[int]], out: dict[str, Any], drafts: tuple[str, ...], new: int) -> None:
    """Greedy text with each draft against plain decoding."""
    plain = [generate(model, prompt, new) for prompt in prompts]
    for name in drafts:
        draft, same, ties, tried, accepted = read_draft(name, model, MODEL), 0, 0, 0, 0
        for prompt, one in zip(prompts, plain, strict=True):
            fast = generate(model, prompt, new, draft=draft, count=4)
            same += fast.tokens == one.tokens
            ties += fast.tokens != one.tokens and min(one.margins) < 1e-3
            tried, accepted = tried + sum(fast.tried), accepted + sum(fast.accepted)
        counted = accepted / tried if tried else 0.0
        out[f"exact {name}"] = {"prompts": len(prompts), "equal": same, "ties": ties, "accepted": counted}
        print(name, out[f"exact {name}"], flush=True)


def sampling(model: Any, prompt: list[int], out: dict[str, Any], drafts: tuple[str, ...]) -> None:
    """Chi-square of the first two of SAMPLES drawn texts against the target's own distribution, for each draft.

    One token is drafted and verified, of the WORDS most likely ones of target and draft.  The second token is looked at
    after each of the FIRST most likely first ones.
    """
    temperature = Sampling(1.0)

    def after(one: Any, rows: list[list[int]]) -> np.ndarray:
        with torch.inference_mode():
            logits = one(input_ids=torch.tensor(rows)).logits[:, -1].float()
        return temperature.probabilities(logits)

    whole = after(model, [prompt])[0]
    second_whole = after(model, [[*prompt, int(token)] for token in np.argsort(-whole)[:FIRST]])
    for name in drafts:
        draft = read_draft(name, model, MODEL)
        found = _drafted(draft, prompt, temperature, after)
        if found is None:
            print(name, "drafts nothing after this prompt", flush=True)
            continue
        words = np.argsort(-np.maximum(whole, found))[:WORDS]  # as top-k sampling cuts
        p, q, second = (
            one[..., words] / one[..., words].sum(-1, keepdims=True) for one in (whole, found, second_whole)
        )
        likely = np.argsort(-p)[:FIRST]
        results = {}
        for rule, shown in (("as it is", p), ("q for p", q)):
            random = np.random.default_rng(7)
            drafted = draw(np.repeat(q[None], SAMPLES, 0), random)
            firsts, seconds = [], []
            for part in drafted.reshape(-1, 500):
                both = np.stack([np.repeat(shown[None], 500, 0), _seconds(part, likely, second)], 1)
                verdict = verify(both, np.repeat(q[None, None], 500, 0), part[:, None], random)
                kept = verdict.accepted == 1
                first = np.where(kept, part, verdict.following)
                firsts.append(first)
                seconds.append(np.where(kept, verdict.following, draw(_seconds(first, likely, second), random)))
            results[rule] = _p_value(np.concatenate(firsts), np.concatenate(seconds), p, likely, second)
        out[f"sampling {name}"] = results
        print(name, results, flush=True)


def _drafted(draft: Draft, prompt: list[int], temperature: Sampling, after: Any) -> np.ndarray | None:
    if isinstance(draft, ModelDraft):
        found: np.ndarray = after(draft.stepper.model, [prompt])[0]
        return found
    tokens, chances = draft.propose(prompt, 1, temperature, np.random.default_rng(0))
    return chances[0] if tokens else None


def _seconds(first: np.ndarray, likely: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The distribution of a second token after each first one; after one that is not looked at, any known one."""
    place = {int(token): number for number, token in enumerate(likely)}
    return second[[place.get(int(token), 0) for token in first]]


def _p_value(first: np.ndarray, then: np.ndarray, p: np.ndarray, likely: np.ndarray, second: np.ndarray) -> float:
    """Chi-square over cells of at least ten: pairs after the likely first tokens, other first tokens alone."""
    cells: list[tuple[float, int]] = []
    for number, token in enumerate(likely):
        own = np.bincount(then[first == token], minlength=len(p))
        cells += zip(p[token] * second[number] * SAMPLES, own, strict=True)
    others = np.delete(np.arange(len(p)), likely)
    cells += zip(p[others] * SAMPLES, np.bincount(first, minlength=len(p))[others], strict=True)
    expected, observed, total, seen = [], [], 0.0, 0
    for chance, counted in sorted(cells, key=lambda one: one[0]):
        total, seen = total + chance, seen + int(counted)
        if total >= 10:
            expected.append(total)
            observed.append(seen)
            total, seen = 0.0, 0
    expected[-1] += total
    observed[-1] += seen
    scale = sum(observed) / sum(expected)
    return float(chisquare(observed, np.array(expected) * scale).pvalue)


class PassesBeside:
    """Passes of target and draft, one of each kind after each text: both meet the machine at the same speed."""

    def __init__(self, model: Any, draft: Draft, context: list[int]) -> None:
        self.context, self.rows = context, list[list[float]]()
        self.steppers = [
            Stepper(one) for one in (model, *([draft.stepper.model] if isinstance(draft, ModelDraft) else ()))
        ]
        for stepper in self.steppers:
            stepper.feed(context)

    def take(self, count: int) -> None:
        """A verification of 1 to `count` + 1 tokens, and a draft pass over one and over two."""
        row = [fed_s(self.steppers[0], self.context[: tokens + 1], 1) for tokens in range(count + 1)]
        row += [fed_s(draft, self.context[:tokens], 1) for draft in self.steppers[1:] for tokens in (1, 2)]
        self.rows.append(row)

    def mean(self, choose_s: tuple[float, ...]) -> PassTimes:
        """The means of what was taken, which is then forgotten."""
        found, self.rows = np.mean(self.rows, 0).tolist(), []
        one_s, two_s = found[-2:] if len(self.steppers) > 1 else (0.0, 0.0)
        verify_s = tuple(found[:-2] if len(self.steppers) > 1 else found)
        return PassTimes(verify_s, one_s, choose_s, max(0.0, two_s - one_s))


def speed(
    model: Any,
    prompts: list[list[int]],
    out: dict[str, Any],
    new: int,
    counts: list[int],
    drafts: tuple[str, ...],
    temperature: float,
) -> None:
    """Tokens a second and acceptance, measured and predicted, for each number of drafted tokens.

    Passes are timed after each text, as a shared machine changes its speed by the minute; the number is chosen by times
    before the first.
    """
    sampling = Sampling(temperature)

    def rate_of(texts: list[Any]) -> float:
        return sum(len(one.tokens) - 1 for one in texts) / sum(one.seconds for one in texts)

    plain = [
        generate(model, prompt, new, sampling=sampling, random=np.random.default_rng(number))
        for number, prompt in enumerate(prompts)
    ]
    context = (prompts[0] * 2)[: len(prompts[0]) + new // 2]
    for name in drafts:
        draft = read_draft(name, model, MODEL)
        texts = [(prompt, one.tokens) for prompt, one in zip(prompts, plain, strict=True)]
        chances = chances_of(model, draft, texts, sampling)
        first = pass_times(model, draft, context, sampling, most=max(counts))
        beside, rows = PassesBeside(model, draft, context), {}
        for count in counts:
            found = []
            for number, prompt in enumerate(prompts):
                random = np.random.default_rng(number)
                found.append(generate(model, prompt, new, draft=draft, count=count, sampling=sampling, random=random))
                beside.take(count)
            rate, foreseen = rate_of(found), foresee(chances, beside.mean(first.choose_s), count)
            tried, kept = sum(sum(one.tried) for one in found), sum(sum(one.accepted) for one in found)
            rows[count] = {
                "measured": rate,
                "predicted": foreseen.per_s,
                "speedup": rate / rate_of(plain),
                "counted": kept / tried if tried else 0.0,
                "foreseen": foreseen.acceptance,
            }
            error = rows[count]["predicted"] / rate - 1
            print(name, count, {key: round(one, 3) for key, one in rows[count].items()}, f"{error:+.1%}", flush=True)
        chosen = max(counts, key=lambda count: foresee(chances, first, count).per_s)
        best = max(row["measured"] for row in rows.values())
        below = 1 - rows[chosen]["measured"] / best
        print(name, "chosen", chosen, f"{below:.1%} below the best", flush=True)
        out[f"speed {name}"] = {"chosen": chosen, "verify_s": first.verify_s, "draft_s": first.draft_s, "rows": rows}


def steps(model: Any, prompt: list[int], out: dict[str, Any], chip: Path, form: str, rounds: int) -> None:
    """A step over one to eight tokens on this processor, foretold from a chip and its runtime, beside the measured one.

    Both come from `tierform calibrate --threads 1`; the runtime's reference steps are measured anew beside each step of
    the model, as a shared machine changes its speed by the minute.  Errors are medians over rounds.
    """
    reference, config = reference_decoder(form)
    model = model.to(TYPES[form])
    mine = Stepper(model)
    mine.feed(prompt)
    found, measured = measure_rounds(reference, rounds, lambda tokens: fed_s(mine, prompt[:tokens]))
    foretold = simulated_steps(chip, load_model(str(model_folder(MODEL))), len(prompt))
    alone = reference_steps(chip, config)
    factors = [in_step(alone, one) for one in found]
    rows = {}
    for tokens, one in enumerate(foretold, 1):
        pairs = [
            (one.seconds(factor.products[tokens - 1], factor.light_time), times[tokens - 1])
            for factor, times in zip(factors, measured, strict=True)
        ]
        errors = [ours / theirs - 1 for ours, theirs in pairs]
        ours, theirs = (float(np.median(side)) for side in zip(*pairs, strict=True))
        rows[tokens] = {"measured_s": theirs, "predicted_s": ours, "error": float(np.median(errors)), "rounds": errors}
        print(
            tokens, f"{1e3 * ours:.1f} ms foretold, {1e3 * theirs:.1f} measured, {np.median(errors):+.1%}", flush=True
        )
    out["steps"] = {"factors": [asdict(one) for one in factors], "rows": rows}


def policies(model: Any, windows: torch.Tensor, out: dict[str, Any], learn: torch.Tensor | None, alone: bool) -> None:
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
    if learn is not None:  # half of the cache as 13/30 of the heads whole, and a tenth of the tokens in the others
        policy = KVPolicy(window=windows.shape[1] // 10, sinks=4, whole=13 / 30)
        heads = choose_heads(model, learn, policy)
        print("whole heads by layer", heads.sum(-1).tolist(), flush=True)
        cases["13/30 of the heads whole, half"] = {"policy": policy, "whole": heads}
    if alone:
        cases = {name: given for name, given in cases.items() if "half" in name or not given}
    for name, given in cases.items():
        each = [perplexities(model, one[None], **given) for one in windows]
        out[f"perplexity {name}"] = float(np.exp(np.log(each).mean()))
        ratios = np.array(each) / np.array(out.setdefault("whole, by window", each))
        out[f"perplexity {name}, by window"] = ratios.tolist()
        print(name, out[f"perplexity {name}"], "median ratio", float(np.median(ratios)), ratios.round(3), flush=True)


def context(model: Any, windows: torch.Tensor, out: dict[str, Any], step: int = 32) -> None:
    """What the farther half of the context is worth to the tokens of each window's second half, in nats a token.

    They are read with everything before them, through a window with sinks of half the cache, and from a text that
    begins anew half a window before (`step` tokens at a time, which see up to as many tokens less).
    """
    half = windows.shape[1] // 2
    mask = mask_of(2 * half, KVPolicy(window=half - 4, sinks=4), model.dtype)
    rows = []
    torch.set_float32_matmul_precision("medium")
    with torch.inference_mode():
        for ids in windows:
            whole, kept = (model(input_ids=ids[None], **given).logits[0] for given in ({}, {"attention_mask": mask}))
            fresh = [
                model(input_ids=ids[None, end - half : end]).logits[0, -step - 1 : -1]
                for end in range(half + step, 2 * half + 1, step)
            ]
            answers = ids[half:]
            rows.append(
                [
                    float(torch.nn.functional.cross_entropy(logits.float(), answers))
                    for logits in (whole[half - 1 : -1], kept[half - 1 : -1], torch.cat(fresh))
                ]
            )
    torch.set_float32_matmul_precision("highest")
    found = np.array(rows)
    out["context"] = {"whole": rows, "mean": found.mean(0).tolist()}
    print("second halves: whole, window and sinks, begun anew", found.mean(0), flush=True)
    lost = found[:, 1:] - found[:, :1]
    print("lost by window", lost.round(3).tolist(), "correlation", np.corrcoef(lost.T)[0, 1], flush=True)


def skips(
    model: Any,
    learn: torch.Tensor,
    test: torch.Tensor,
    out: dict[str, Any],
    by: str,
    counts: list[int],
    begin: list[str],
) -> None:
    """Perplexity without some attention sublayers: chosen by calibration, and the last ones."""
    layers = len(anatomy(model).layers)
    for count in counts:
        torch.set_float32_matmul_precision("medium")  # bf16 factors to choose by, where the processor can
        chosen = choose_skips(model, learn, count, by=by, kinds=("attention",), begin=tuple(begin), say=print)
        torch.set_float32_matmul_precision("highest")
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
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--draft", action="append", help="Drafts to try (default: lookup, nine planes, five skipped).")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--counts", default="1,2,3,4,5,6")
    parser.add_argument("--temperature", type=float, default=0.0, help="speed: 0 takes the most likely token.")
    parser.add_argument("--skip-by", default="cosine", choices=["cosine", "loss", "exchange"])
    parser.add_argument("--skip", default="5,10", help="skips: attention sublayers that are left out.")
    parser.add_argument("--begin", default="", help="skips: layers whose attention is taken before any is chosen.")
    parser.add_argument("--learn", type=Path, help="policies, skips: another text, on which is chosen.")
    parser.add_argument("--half", action="store_true", help="policies: of half the cache alone.")
    parser.add_argument("--chip", type=Path, help="steps: the chip file that `tierform calibrate --threads 1` wrote.")
    parser.add_argument("--format", default="fp32", choices=["fp32", "bf16"], help="steps: the chip's format.")
    parser.add_argument("--rounds", type=int, default=5, help="steps: how often each step is measured.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_language_model(MODEL)
    read_from_store(model, 16)
    out: dict[str, Any] = {}
    parts = given.part or ["exact", "sampling", "speed", "policies", "skips"]
    drafts = tuple(given.draft or DRAFTS)
    windows = windows_of(given.text, tokenizer, 2 * given.windows, given.length)
    if "policies" in parts:
        learn = windows_of(given.learn, tokenizer, 2, given.length) if given.learn else None
        policies(model, windows[: given.windows], out, learn, given.half)
    if "context" in parts:
        context(model, windows[: given.windows], out)
    if "skips" in parts:
        half = windows[:, : given.length // 2]
        learn = half[given.windows :]
        if given.learn:
            learn = windows_of(given.learn, tokenizer, given.windows, given.length // 2)
        counts = [int(one) for one in given.skip.split(",")]
        begin = [f"model.layers.{one}.attention" for one in given.begin.split(",") if one]
        skips(model, learn, half[: given.windows], out, given.skip_by, counts, begin)
    if "exact" in parts:
        exact(model, prompts_of(given.text, tokenizer, given.prompts), out, drafts, given.new)
    if "sampling" in parts:
        (prompt,) = prompts_of(given.text, tokenizer, 1, 256)
        sampling(model, prompt, out, drafts)
    if "steps" in parts and given.chip:
        (prompt,) = prompts_of(given.text, tokenizer, 1, 64)
        steps(model, prompt, out, given.chip, given.format, given.rounds)
    if "speed" in parts:
        prompts = prompts_of(given.text, tokenizer, min(given.prompts, 6))
        counts = [int(one) for one in given.counts.split(",")]
        speed(model, prompts, out, given.new, counts, drafts, given.temperature)
    if given.json:
        given.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
