"""One decoding job: a model, prompts, a draft; generated text, and speed and acceptance, predicted and measured.

With `tokens` None the number of drafted tokens is chosen from measured passes and an acceptance read off the logits of
the first prompts, and the prediction for it stands beside what the loop then takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tierform.errors import Problem, TierformError, fail
from tierform.files import read_text
from tierform.workload.kv_policy import KVPolicy

Say = Callable[[str, int, int], None]
MAX_PROMPTS_B = 16 * 2**20
LEARNED = 2  # windows of text on which heads are chosen
LEARNING = 3  # prompts whose answers give the predicted acceptance


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """What is decoded.

    `prompts` is a text file of prompts, one on a line; `new` tokens are generated for each.  `policy` and `cache_bits`
    are measured as perplexity on `test`, `windows` windows of `length` tokens; heads that keep every token are chosen
    on `learn`.
    """

    model: str
    draft: str = ""
    tokens: int | None = None
    prompts: Path | None = None
    new: int = 64
    temperature: float = 0.0
    seed: int = 0
    threads: int = 1
    policy: KVPolicy | None = None
    cache_bits: int = 0
    test: Path | None = None
    learn: Path | None = None
    windows: int = 4
    length: int = 512

    def problems(self) -> list[Problem]:
        """Everything that can be said to be wrong before a model is loaded."""
        from tierform.decoding.drafts import draft_problems

        found = draft_problems(self.draft, self.tokens, self.model) if self.draft else []
        if self.prompts is None and self.test is None:
            found.append(Problem("is missing", key="--prompts", fix="Give prompts to decode, or --test with --policy."))
        if self.draft and self.prompts is None:
            found.append(Problem("a draft needs prompts", key="--prompts"))
        measured = self.policy is not None or self.cache_bits
        if measured and self.test is None:
            found.append(Problem("a policy is measured on a text", key="--test", fix="Give --test FILE."))
        if self.policy is not None and self.policy.whole and self.learn is None:
            what, fix = (
                "heads that keep every token are chosen on a text",
                "Give --learn FILE, another text than --test.",
            )
            found.append(Problem(what, key="--learn", fix=fix))
        if self.learn is not None and not (self.policy is not None and self.policy.whole):
            what = "is used by a policy with heads that keep every token (whole:0.4)"
            found.append(Problem(what, key="--learn", value=str(self.learn)))
        if self.test is not None and not measured:
            found.append(Problem("is used by --policy and --cache-bits", key="--test", value=str(self.test)))
        if self.tokens is not None and not self.draft:
            found.append(Problem("has no meaning without --draft", key="--tokens", value=self.tokens))
        if self.temperature < 0:
            found.append(Problem("must not be below 0", key="--temperature", value=self.temperature))
        return found


@dataclass(slots=True)
class DecodeReport:
    """What came out; times are processor seconds with one thread, else wall seconds."""

    model: str
    draft: str
    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    generated: int = 0
    equal: bool | None = None
    counted: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    plain_per_s: float = 0.0
    drafted_per_s: float = 0.0
    predicted_per_s: float = 0.0
    by_tokens: dict[int, float] = field(default_factory=dict)
    perplexities: dict[str, float] = field(default_factory=dict)

    @property
    def speedup(self) -> float:
        """Drafted over plain decoding."""
        return self.drafted_per_s / self.plain_per_s if self.plain_per_s else 0.0

    def to_dict(self) -> dict[str, object]:
        """For JSON; the acceptance is what `simulate --acceptance` reads."""
        content = asdict(self)
        content["acceptance"] = {"counted": content.pop("counted"), "predicted": content.pop("predicted")}
        return {"schema": "tierform.decode/1", **content, "speedup": self.speedup}


def run_decode(job: DecodeJob, say: Say | None = None) -> DecodeReport:
    """Run the job; TierformError with every mistake."""
    problems = job.problems()
    if problems:
        raise TierformError(problems)
    import torch

    from tierform.compression.checkpoints.folder import load_language_model

    tell = say or (lambda *_: None)
    tell("loading", 0, 0)
    torch.set_num_threads(job.threads)
    model, tokenizer = load_language_model(job.model)
    report = DecodeReport(job.model, job.draft)
    if job.test is not None:
        _policies(job, model, tokenizer, report, tell)
    if job.prompts is not None:
        _decode(job, model, tokenizer, report, tell)
    return report


def _policies(job: DecodeJob, model: Any, tokenizer: Any, report: DecodeReport, tell: Say) -> None:
    from tierform.compression.text import windows_of
    from tierform.decoding.policies import NarrowCache, choose_heads, perplexities

    assert job.test is not None
    windows = windows_of(job.test, tokenizer, job.windows, job.length, key="--test")
    if job.policy is not None and job.policy.kept(job.length) >= job.length:
        fail("the policy keeps every token of a window", key="--policy", fix="Give a longer --length.")
    cases: dict[str, dict[str, Any]] = {"whole cache": {}}
    if job.policy is not None:
        cases["policy"] = {"policy": job.policy}
        if job.policy.whole and job.learn is not None:
            tell("choosing heads", 0, 0)
            learned = windows_of(job.learn, tokenizer, min(LEARNED, job.windows), job.length, key="--learn")
            cases["policy"]["whole"] = choose_heads(model, learned, job.policy)
    if job.cache_bits:
        cases[f"int{job.cache_bits} cache"] = {"narrow": NarrowCache(job.cache_bits)}
    for name, given in cases.items():
        report.perplexities[name] = perplexities(
            model,
            windows,
            **given,
            progress=lambda done, name=name: tell(name, done, job.windows),  # type: ignore[misc]
        )


def _decode(job: DecodeJob, model: Any, tokenizer: Any, report: DecodeReport, tell: Say) -> None:
    from tierform.decoding.drafts import read_draft, read_from_store
    from tierform.decoding.loop import Sampling, generate

    prompts = _prompts(job, tokenizer, model)
    sampling = Sampling(job.temperature)
    if job.draft.startswith("planes:"):
        read_from_store(model, 16)  # the target is what the store holds, read whole
    draft = read_draft(job.draft, model, job.model) if job.draft else None  # refused before anything is decoded
    plain = []
    for number, prompt in enumerate(prompts):
        tell("decoding", number, len(prompts))
        plain.append(
            generate(model, prompt, job.new, sampling=sampling, random=np.random.default_rng(job.seed + number))
        )
    report.texts = [tokenizer.decode(one.tokens) for one in plain]
    report.generated = sum(len(one.tokens) for one in plain)
    report.plain_per_s = _rate(plain)
    if draft is None:
        return
    count = job.tokens or _chosen(job, model, draft, prompts, plain, sampling, report)
    report.tokens = count
    drafted = []
    for number, prompt in enumerate(prompts):
        tell("decoding with drafts", number, len(prompts))
        random = np.random.default_rng(job.seed + number)
        drafted.append(generate(model, prompt, job.new, draft=draft, count=count, sampling=sampling, random=random))
    report.drafted_per_s = _rate(drafted)
    tried, accepted = (np.array([getattr(one, name) for one in drafted]).sum(0) for name in ("tried", "accepted"))
    report.counted = [float(a / t) for a, t in zip(accepted, tried, strict=True) if t]
    if job.temperature == 0:
        report.equal = all(a.tokens == b.tokens for a, b in zip(plain, drafted, strict=True))
    else:
        report.texts = [tokenizer.decode(one.tokens) for one in drafted]


def _chosen(
    job: DecodeJob, model: Any, draft: Any, prompts: Any, plain: Any, sampling: Any, report: DecodeReport
) -> int:
    """The number of drafted tokens with the best prediction; notes the predictions."""
    from tierform.decoding.foreseen import best_of, foresee
    from tierform.decoding.measure import acceptance_of, chances_of, pass_times

    texts = [(prompt, one.tokens) for prompt, one in zip(prompts, plain, strict=True)][:LEARNING]
    chances = chances_of(model, draft, texts, sampling)
    report.predicted = acceptance_of(draft, chances)
    context = (prompts[0] * (1 + job.new))[: len(prompts[0]) + job.new // 2]
    times = pass_times(model, draft, context, sampling)
    report.by_tokens = {count: foresee(chances, times, count).per_s for count in range(1, len(times.verify_s))}
    count = best_of(chances, times)
    report.predicted_per_s = report.by_tokens[count]
    return count


def _rate(found: list[Any]) -> float:
    seconds = sum(one.seconds for one in found)
    return sum(len(one.tokens) - 1 for one in found) / seconds if seconds else 0.0


def _prompts(job: DecodeJob, tokenizer: Any, model: Any) -> list[list[int]]:
    assert job.prompts is not None
    lines = [line for line in read_text(job.prompts, MAX_PROMPTS_B).splitlines() if line.strip()]
    if not lines:
        fail("the file has no prompts", file=str(job.prompts), key="--prompts", fix="Write one on each line.")
    found = [list(tokenizer(line, add_special_tokens=False)["input_ids"]) for line in lines]
    longest = max(map(len, found)) + job.new
    most = int(getattr(model.config, "max_position_embeddings", 2**31))
    problems = []
    if longest > most:
        what = f"the longest prompt with its new tokens has {longest} tokens, the model takes {most}"
        problems.append(Problem(what, file=str(job.prompts), key="--new", value=job.new))
    if job.tokens is not None and job.tokens >= most:
        problems.append(Problem(f"the model's context has {most} tokens", key="--tokens", value=job.tokens))
    if problems:
        raise TierformError(problems)
    return found
