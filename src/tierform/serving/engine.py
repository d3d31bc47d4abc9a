"""The engine: what an operator of a server sets, under vLLM's own names.

An :class:`Engine` is frozen; its file form is read by :func:`load_engine`.  Defaults are those of vLLM 0.19's server
where it has one.  ``num_gpu_blocks`` left out is derived from chip, model and runtime
(:mod:`tierform.serving.capacity`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tierform.errors import Problem, TierformError, nearest
from tierform.files import Document, read_yaml
from tierform.schema import FileModel, Share, validate
from tierform.serving.state import FCFS, ORCA, PRIORITY, SARATHI, SHORTEST, SURE, VLLM

SCHEMA = "tierform.engine/1"
Policy = Literal["fcfs", "priority", "sjf"]
Scheduler = Literal["vllm", "sarathi", "orca"]
DraftMethod = Literal["draft_model", "ngram"]
_POLICIES = {"fcfs": FCFS, "priority": PRIORITY, "sjf": SHORTEST}
_SCHEDULERS = {"vllm": VLLM, "sarathi": SARATHI, "orca": ORCA}
SARATHI_WATERMARK = 0.01  # of all blocks, kept free at admission (the scheduler's published code)
MOST_BLOCKS = 2**30


class SpeculationFile(FileModel):
    """How tokens are drafted, in an engine file."""

    method: DraftMethod = Field("draft_model", description="Who drafts: draft_model, or ngram (looked up, for nothing)")
    model: str | None = Field(None, description="The draft model: a name of the library, a folder or a Hub id")
    num_speculative_tokens: int = Field(
        strict=True, ge=1, le=64, description="Drafted tokens that a step of a request verifies"
    )
    acceptance_rate: Share = Field(description="Chance that a draft is accepted when all before it were")


class EngineFile(FileModel):
    """An engine file."""

    num_gpu_blocks: int | None = Field(
        None,
        strict=True,
        ge=2,
        le=MOST_BLOCKS,
        description="KV blocks, one of them vLLM's null block; derived if left out",
    )
    block_size: int = Field(16, strict=True, ge=1, le=4096, description="Tokens of a KV block")
    max_num_seqs: int = Field(256, strict=True, ge=1, le=65536, description="Most requests in a batch")
    max_num_batched_tokens: int = Field(2048, strict=True, ge=1, le=2**24, description="Most new tokens in a step")
    max_model_len: int = Field(
        131072, strict=True, ge=2, le=2**24, description="Most tokens of a prompt and its answer together"
    )
    enable_prefix_caching: bool = Field(True, description="Whether blocks of equal content are found again")
    enable_chunked_prefill: bool = Field(True, description="Whether a prompt may be cut to fill a step")
    long_prefill_token_threshold: int = Field(
        0, strict=True, ge=0, le=2**24, description="Most tokens of one prompt in a step; 0: no such limit"
    )
    scheduler_reserve_full_isl: bool = Field(
        True, description="Whether the whole prompt must fit the free blocks before its first chunk is admitted"
    )
    async_scheduling: bool = Field(True, description="Whether a step is planned before the tokens of the last return")
    scheduling_policy: Policy = Field("fcfs", description="Order of the queue: fcfs, priority, or sjf (shortest first)")
    scheduler: Scheduler = Field("vllm", description="Who plans steps: vllm, sarathi or orca")
    watermark: Share | None = Field(
        None, description="Share of the blocks kept free at admission; by default 0, with sarathi 0.01"
    )
    gpu_memory_utilization: Share = Field(0.92, description="Share of the memory that the engine may use")
    first_step_s: float = Field(
        0.0,
        ge=0,
        description="Seconds that a replica's first step takes longer, while the host loads kernels and plans nothing",
    )
    enable_lora: bool = Field(False, description="Whether requests may ask for low-rank adapters")
    max_loras: int = Field(1, strict=True, ge=1, le=4096, description="Adapters in memory at a time")
    max_lora_rank: int = Field(16, strict=True, ge=1, le=1024, description="Rank of the adapters")
    lora_targets: str = Field("q,v", description="Projections that have adapters, separated by commas")
    kv_offloading_size: float = Field(
        0.0,
        ge=0,
        le=2**20,
        description="GiB of a host for keys and values of preempted requests; 0: they are computed again",
    )
    host: str = Field("pcie4-dram", description="Memory behind a link where these and adapters wait")
    generation_config: Literal["auto", "vllm"] = Field(
        "auto",
        description="Whose defaults choose tokens: the model's (auto: logits are sorted for top-p), or vllm's (none)",
    )
    speculative_config: SpeculationFile | None = Field(
        None, description="How tokens are drafted that the next step verifies; none are if left out"
    )


@dataclass(frozen=True, slots=True)
class Speculation:
    """How tokens are drafted; see :class:`SpeculationFile` for what each means."""

    num_speculative_tokens: int
    acceptance_rate: float
    method: DraftMethod = "draft_model"
    model: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.method not in get_args(DraftMethod):
            choices = get_args(DraftMethod)
            close = nearest(str(self.method), choices)
            problems.append(Problem("not a known choice", key="method", value=self.method, nearest=close))
        if isinstance(self.num_speculative_tokens, bool) or not 1 <= self.num_speculative_tokens <= 64:
            what = "must be a whole number from 1 to 64"
            problems.append(Problem(what, key="num_speculative_tokens", value=self.num_speculative_tokens))
        if not 0 <= self.acceptance_rate <= 1:
            problems.append(Problem("must be a share", key="acceptance_rate", value=self.acceptance_rate))
        if (self.method == "draft_model") != (self.model is not None):
            what = "a draft model has a name, and nothing else has one"
            problems.append(Problem(what, key="model", value=self.model, fix="Name it, or take method: ngram."))
        if problems:
            raise TierformError(problems)

    @property
    def lookahead(self) -> int:
        """Places for keys and values that are kept for tokens that will be drafted."""
        return self.num_speculative_tokens if self.model is not None else 0


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's settings; see :class:`EngineFile` for what each means."""

    num_gpu_blocks: int | None = None
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 131072
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    scheduler_reserve_full_isl: bool = True
    async_scheduling: bool = True
    scheduling_policy: Policy = "fcfs"
    scheduler: Scheduler = "vllm"
    watermark: float | None = None
    gpu_memory_utilization: float = 0.92
    generation_config: Literal["auto", "vllm"] = "auto"
    first_step_s: float = 0.0
    enable_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16
    lora_targets: str = "q,v"
    kv_offloading_size: float = 0.0
    host: str = "pcie4-dram"
    speculative_config: Speculation | None = None

    def __post_init__(self) -> None:
        problems = [
            Problem(
                "not a known choice", key=key, value=value, nearest=nearest(str(value), choices), fix=_listed(choices)
            )
            for key, value, choices in (
                ("scheduling_policy", self.scheduling_policy, get_args(Policy)),
                ("scheduler", self.scheduler, get_args(Scheduler)),
                ("generation_config", self.generation_config, ("auto", "vllm")),
            )
            if value not in choices
        ]
        for name, least in (
            ("block_size", 1),
            ("max_num_seqs", 1),
            ("max_num_batched_tokens", 1),
            ("max_model_len", 2),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                problems.append(Problem(f"must be a whole number of at least {least}", key=name, value=value))
        if self.num_gpu_blocks is not None and (not isinstance(self.num_gpu_blocks, int) or self.num_gpu_blocks < 2):
            problems.append(Problem("must be at least 2", key="num_gpu_blocks", value=self.num_gpu_blocks))
        if self.watermark is not None and not 0 <= self.watermark < 1:
            problems.append(Problem("must be a share below 1", key="watermark", value=self.watermark))
        if not 0 < self.gpu_memory_utilization <= 1:
            what = "must be a share above 0"
            problems.append(Problem(what, key="gpu_memory_utilization", value=self.gpu_memory_utilization))
        if self.scheduler != "vllm":
            if self.speculative_config is not None:
                problems.append(Problem(f"the scheduler {self.scheduler} verifies no drafts", key="speculative_config"))
            problems += [
                Problem(f"the scheduler {self.scheduler} has none", key=name, value=True, fix=f"Set {name} to false.")
                for name in ("enable_prefix_caching", "async_scheduling")
                if getattr(self, name)
            ]
        if not self.enable_chunked_prefill and self.scheduler == "vllm" and self.long_prefill_token_threshold:
            what = "a threshold cuts prompts, which enable_chunked_prefill forbids"
            problems.append(Problem(what, key="long_prefill_token_threshold", value=self.long_prefill_token_threshold))
        if problems:
            raise TierformError(problems)

    def numbers(self) -> NDArray[np.int64]:
        """The settings as the compiled scheduler reads them."""
        if self.num_gpu_blocks is None:
            raise ValueError("the number of blocks is not known yet")
        orca, whole = self.scheduler == "orca", 2**31 - 1
        share = self.watermark
        if share is None:
            share = SARATHI_WATERMARK if self.scheduler == "sarathi" else 0.0
        spec = self.speculative_config
        return np.array(
            [
                self.num_gpu_blocks,
                self.block_size,
                self.max_num_seqs,
                whole if orca else self.max_num_batched_tokens,
                self.max_model_len,
                self.enable_prefix_caching,
                self.enable_chunked_prefill and not orca,
                0 if orca else self.long_prefill_token_threshold,
                self.scheduler_reserve_full_isl,
                self.async_scheduling,
                _POLICIES[self.scheduling_policy],
                _SCHEDULERS[self.scheduler],
                int(share * self.num_gpu_blocks),
                round(self.first_step_s * 1e9),
                self.max_loras if self.enable_lora else 0,
                spec.num_speculative_tokens if spec is not None else 0,
                spec.lookahead if spec is not None else 0,
                round(spec.acceptance_rate * SURE) if spec is not None else 0,
            ],
            np.int64,
        )


def _listed(choices: tuple[str, ...]) -> str:
    return f"Choose one of {', '.join(choices)}."


def engine_of(given: EngineFile) -> Engine:
    """The engine of a file's content; TierformError with every mistake."""
    drafts = given.speculative_config
    settings = {item.name: getattr(given, item.name) for item in fields(Engine)}
    return Engine(**{**settings, "speculative_config": Speculation(**drafts.model_dump()) if drafts else None})


def load_engine(path: str | Path) -> Engine:
    """An engine from a YAML file; TierformError with every mistake and its line."""
    document = read_yaml(path)
    content = document.content if document.content is not None else {}
    if isinstance(content, dict) and "schema" in content:
        if content["schema"] != SCHEMA:
            raise TierformError(
                [
                    Problem(
                        "this file has another schema",
                        document.file,
                        document.line_of(("schema",)),
                        value=content["schema"],
                        fix=f"This version reads {SCHEMA}.",
                    )
                ]
            )
        content = {key: value for key, value in content.items() if key != "schema"}
    given = validate(EngineFile, Document(content, document.file, document.lines))
    try:
        return engine_of(given)
    except TierformError as error:
        raise TierformError(
            replace(p, file=document.file, line=document.line_of((p.key or "",))) for p in error.problems
        ) from None
