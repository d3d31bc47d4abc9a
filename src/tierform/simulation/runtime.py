"""The runtime: what the software adds to what the hardware takes.

A runtime is a library file (or a path) with its sources.  ``ideal`` adds nothing and lets components fuse operators;
``eager`` runs every operator as a kernel of its own and holds attention scores in memory, as code without fused
kernels does.  Others stand for a named program of a year, and say on which rows their numbers were fitted
(docs/runtimes.md).  The result names the runtime that was used.  Where each number acts:
`tierform.simulation.software`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tierform import library
from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.files import Document, read_yaml
from tierform.provenance import Assumption, Constant
from tierform.schema import FileModel, quantity, validate
from tierform.units import format_quantity
from tierform.workload.autograd import NONE, Habit, Habits

SCHEMA = "tierform.runtime/1"
_Factor = Annotated[Constant, quantity("1", above=0)]
_Share = Annotated[Constant, quantity("1", minimum=0)]
_Time = Annotated[Constant, quantity("s", minimum=0)]
_ONE = Constant(1.0, "", "assumed", note="adds nothing")
_NO_POWER = Constant(0.0, "", "assumed", note="adds nothing")
_NO_SHARE = Constant(0.0, "", "assumed", note="adds nothing")
_NO_SPREAD = Constant(0.0, "", "assumed", note="all are equally long")
_NO_TIME = Constant(0.0, "s", "assumed", note="adds nothing")


class RuntimeFile(FileModel):
    """A runtime file."""

    name: str = Field(description="Name of the runtime, as results print it.")
    description: str = Field("", description="What it stands for, in a sentence.")
    fuses_operators: bool = Field(
        True, description="Whether neighbouring operators run as one kernel where a component can; false: each its own."
    )
    fuses_attention: bool | None = Field(
        None,
        description="Whether attention does, so that its scores never stand in memory; as fuses_operators if left out",
    )
    composes_operators: bool = Field(
        False,
        description="Whether what model code composes of several operations (scale, mask and softmax; the tanh form of "
        "GELU) is a kernel for each of them, as in eager code",
    )
    merges_projections: list[Literal["attention", "ffn"]] = Field(
        [], description="Where products of one input run as one: attention (query, key, value), ffn (gate, up)"
    )
    product_time: dict[str, _Factor] = Field(
        {}, description="Factor on the time of products, by the widest number format of their operands"
    )
    weight_only_time: dict[str, _Factor] = Field(
        {},
        description="Factor on the time of products whose weights are narrower than their inputs, by the weights' "
        "plain format (int4, int8, fp8, nf4); such a product has no other factor",
    )
    experts_time: _Factor = Field(
        _ONE, description="Factor on the time of products of many experts at once, beside product_time"
    )
    keeps: list[Habit] = Field(
        [], description="What training keeps beside the tensors that gradients need (docs/runtimes.md has each)"
    )
    light_time: _Factor = Field(_ONE, description="Factor on the time of all kernels that are no products")
    attention_time: _Factor = Field(_ONE, description="Factor on the time of fused attention, forward")
    attention_backward_time: _Factor = Field(_ONE, description="Factor on the time of fused attention, backward")
    attention_generation: Literal[2, 3] | None = Field(
        None,
        description="Generation of FlashAttention that the software has; the chip's if left out. Where the chip's "
        "kernels are of a later one, the two factors below hold",
    )
    older_attention_time: _Factor = Field(
        _ONE, description="Factor on fused attention, forward, where the chip's kernels are of a later generation"
    )
    older_attention_backward_time: _Factor = Field(_ONE, description="The same, backward")
    grouped_decode_share: _Share = Field(
        _NO_SHARE,
        description="What each further head that shares keys and values adds to attention of one new token, as a share "
        "of its time (old kernels read them anew for each head)",
    )
    optimizer_time: _Factor = Field(
        _ONE, description="Factor on the time of the optimizer over one pass through its states (foreach makes several)"
    )
    collective_time: _Factor = Field(_ONE, description="Factor on the time of collectives")
    direct_all_reduce: bool = Field(
        False,
        description="Whether small all-reduces are one kernel that reads the other GPUs' memory, where the chip's file "
        "times it (`links.direct`), instead of the communication library's",
    )
    step_time: _Time = Field(_NO_TIME, description="Host time of a step, in which the chip waits")
    kernel_time: _Time = Field(
        _NO_TIME, description="Host time to issue an operator; a pass is no shorter than that of all its operators"
    )
    captured: list[Literal["prefill", "decode", "training"]] = Field(
        [],
        description="Passes whose kernels are captured in a graph: the host issues them at once, without kernel_time",
    )
    admission: Literal["together", "in-turn"] = Field(
        "together",
        description="How prompts start: all of a batch together, or in turn, each in a step of those that decode "
        "(a server under steady load)",
    )
    length_spread: Annotated[Constant, quantity("1", minimum=0)] = Field(
        _NO_SPREAD,
        description="Standard deviation of the generations' lengths over their mean, where prompts start in turn: a "
        "step meets long ones more often",
    )
    dequantized_time: _Time = Field(
        _NO_TIME, description="Host time that a product with quantized weights takes on top of kernel_time"
    )
    sampling_time: _Time = Field(
        _NO_TIME,
        description="Time on the chip of choosing a token, for each sequence, step and entry of the vocabulary",
    )
    sampling_power: Annotated[Constant, quantity("1", minimum=0)] = Field(
        _NO_POWER,
        description="Share of the board's power limit, less what a working board draws in any case, that this takes; "
        "of one chip of a tensor group",
    )
    sampling_power_others: Annotated[Constant, quantity("1", minimum=0)] = Field(
        _NO_POWER, description="The same of each other chip of a tensor group"
    )


@dataclass(frozen=True, slots=True)
class Runtime:
    """A loaded runtime; times in seconds, factors on times.  `evidence` holds its numbers with their sources."""

    name: str
    description: str = ""
    fuses_operators: bool = True
    fuses_attention: bool = True
    composes_operators: bool = False
    merges_projections: tuple[str, ...] = ()
    product_time: tuple[tuple[str, float], ...] = ()
    weight_only_time: tuple[tuple[str, float], ...] = ()
    keeps: Habits = NONE
    experts_time: float = 1.0
    light_time: float = 1.0
    attention_time: float = 1.0
    attention_backward_time: float = 1.0
    attention_generation: int = 0
    older_attention_time: float = 1.0
    older_attention_backward_time: float = 1.0
    grouped_decode_share: float = 0.0
    optimizer_time: float = 1.0
    collective_time: float = 1.0
    direct_all_reduce: bool = False
    step_s: float = 0.0
    kernel_s: float = 0.0
    captured: tuple[str, ...] = ()
    admission: Literal["together", "in-turn"] = "together"
    length_spread: float = 0.0
    dequantized_s: float = 0.0
    sampling_s: float = 0.0
    sampling_power: float = 0.0
    sampling_power_others: float = 0.0
    evidence: tuple[Assumption, ...] = field(default=(), compare=False)

    def sampling_power_of(self, tensor: int) -> float:
        """Share of the boards' headroom that choosing tokens takes, in the mean of a tensor group."""
        return (self.sampling_power + (tensor - 1) * self.sampling_power_others) / tensor

    def attention_on(self, chip: Chip) -> Literal["fused", "tiled", "eager"]:
        """How attention's scores are held on this chip: never whole, whole only for backward, or whole."""
        fusers = list(chip.can.fusers.values())
        if not fusers:
            return "tiled"
        return "fused" if self.fuses_attention and any(part.fuses_attention for part in fusers) else "eager"


IDEAL = Runtime("ideal", "adds nothing to what the hardware takes")


def load_runtime(name: str | Path) -> Runtime:
    """A runtime of the library by name, or from a YAML file; TierformError with every mistake and its line."""
    text = str(name)
    path = Path(text) if text.endswith((".yaml", ".yml")) else library.find("runtimes", text)
    if not path.is_file():
        return _read(path)
    known = path.stat()
    return _once(path, known.st_mtime_ns, known.st_size)


@lru_cache(maxsize=64)
def _once(path: Path, changed_ns: int, size_B: int) -> Runtime:
    """The runtime of a file, read again when the file is another."""
    return _read(path)


def _read(path: Path) -> Runtime:
    document = read_yaml(path)
    if isinstance(document.content, dict) and "schema" in document.content:
        if document.content["schema"] != SCHEMA:
            fail(
                "this file has another schema",
                file=document.file,
                line=document.line_of(("schema",)),
                value=document.content["schema"],
                choices=[SCHEMA],
                fix=f"This version reads {SCHEMA}.",
            )
        content = {key: value for key, value in document.content.items() if key != "schema"}
        document = Document(content, document.file, document.lines)
    described = validate(RuntimeFile, document)
    for key, table in (("product_time", described.product_time), ("weight_only_time", described.weight_only_time)):
        for form in table:
            _check_format(form, document, key)
    return _loaded(described)


def _check_format(form: str, document: Document, key: str) -> None:
    known = ("fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "nf4", "int8", "int4")
    if form not in known:
        fail(
            "no such number format",
            file=document.file,
            line=document.line_of((key, form)),
            key=key,
            value=form,
            choices=known,
            fix=f"Known: {', '.join(known)}.",
        )


def _loaded(given: RuntimeFile) -> Runtime:
    fuses_attention = given.fuses_operators if given.fuses_attention is None else given.fuses_attention
    return Runtime(
        name=given.name,
        description=given.description,
        fuses_operators=given.fuses_operators,
        fuses_attention=fuses_attention,
        composes_operators=given.composes_operators,
        merges_projections=tuple(sorted(set(given.merges_projections))),
        product_time=tuple(sorted((form, factor.value) for form, factor in given.product_time.items())),
        weight_only_time=tuple(sorted((form, factor.value) for form, factor in given.weight_only_time.items())),
        keeps=frozenset(given.keeps),
        experts_time=given.experts_time.value,
        light_time=given.light_time.value,
        attention_time=given.attention_time.value,
        attention_backward_time=given.attention_backward_time.value,
        attention_generation=given.attention_generation or 0,
        older_attention_time=given.older_attention_time.value,
        older_attention_backward_time=given.older_attention_backward_time.value,
        grouped_decode_share=given.grouped_decode_share.value,
        optimizer_time=given.optimizer_time.value,
        collective_time=given.collective_time.value,
        direct_all_reduce=given.direct_all_reduce,
        step_s=given.step_time.value,
        kernel_s=given.kernel_time.value,
        captured=tuple(sorted(set(given.captured))),
        admission=given.admission,
        length_spread=given.length_spread.value,
        dequantized_s=given.dequantized_time.value,
        sampling_s=given.sampling_time.value,
        sampling_power=given.sampling_power.value,
        sampling_power_others=given.sampling_power_others.value,
        evidence=tuple(_evidence(given)),
    )


def _evidence(given: RuntimeFile) -> list[Assumption]:
    """A line for each number that the file gives."""
    found = []
    for key in sorted(given.model_fields_set):
        value = getattr(given, key)
        numbers = (
            {f"{key}.{form}": number for form, number in value.items()} if isinstance(value, dict) else {key: value}
        )
        for name, number in numbers.items():
            if isinstance(number, Constant):
                shown = format_quantity(number.value, number.unit)
                found.append(
                    Assumption(f"runtime {given.name}: {name}", shown, number.kind, number.source, number.note)
                )
    return found
