"""Steps of decoding with drafts, laid out: stages ``draft`` and ``verify``, and what the draft keeps.

A run of steps has one stage of drafting (repeated for every token drafted one after the other) and one of verifying,
both at the run's middle context.  A context grows by the mean tokens of a step.  The number of steps is that which
gives the asked tokens in the mean.  What drafts with the target's own weights (fewer planes, fewer sublayers, an early
exit) adds operators but neither weights nor cache; a draft model, EAGLE's layer, Medusa's heads and layers of
multi-token prediction do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tierform.errors import fail
from tierform.workload.decoding import Decoding
from tierform.workload.drafts import draft_model, heads_section, joining_section
from tierform.workload.formats import format_of
from tierform.workload.graph import Stage, StageKind, Wave, Weight
from tierform.workload.layers import Pass
from tierform.workload.layout import EqualLayers, Plan, lay_out, lay_out_sections
from tierform.workload.memory import BlockMemory, Footprint
from tierform.workload.task import Inference, SequenceGroup

PREFIX = "draft."
Laid = tuple[Stage, list[list[EqualLayers]]]
# Drafts whose weights are the target's own.
OWN = ("planes", "skip", "early-exit")
# Drafts that read the prompt into a cache of their own.
READING = ("model", "eagle", "mtp")
# Drafts that join the target's hidden state with the embedding of a token.
JOINING = ("eagle", "mtp")


@dataclass
class Drafted:
    """The steps of one task."""

    target: Plan
    task: Inference
    decoding: Decoding
    pass_: Pass
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        decoding, precision = self.decoding, self.target.precision
        if decoding.draft == "planes":
            own = {name: _planes(precision.weight_precision(name), decoding.planes) for name in ("attention", "ffn")}
            precision = replace(precision, attention_weights=own["attention"], ffn_weights=own["ffn"])
        if decoding.weights:
            precision = precision.with_weights(decoding.weights)
        self.plan = replace(self.target, model=draft_model(self.target.model, decoding), precision=precision)

    @property
    def number(self) -> int:
        """Steps that give the asked tokens in the mean."""
        per_step = 1.0 if self.decoding.draft == "early-exit" else self.decoding.tokens_a_step()
        return max(1, round(self.task.decode / per_step))

    def prompt(self) -> list[Laid]:
        """The prompt's pass through what drafts with a cache of its own; nothing for other drafts."""
        if self.decoding.draft not in READING and self.decoding.draft != "medusa":
            return []
        if self.decoding.draft == "medusa":
            segments = self._heads()
            return [(Stage("draft.prefill", StageKind.PREFILL, (_wave(segments, 0),)), [segments])]
        segments = self._layers(self.pass_)
        return [(Stage("draft.prefill", StageKind.PREFILL, (_wave(segments, 0),)), [segments])]

    def _layers(self, p: Pass) -> list[EqualLayers]:
        """A pass through what drafts."""
        joined = [joining_section(self.plan.model, p)] if self.decoding.draft in JOINING else []
        before = lay_out_sections(self.plan, p, tuple(joined)) if joined else []
        return _named([*before, *lay_out(self.plan, p)])

    def _heads(self) -> list[EqualLayers]:
        section = heads_section(self.plan.model, self.pass_, self.decoding.positions)
        return _named(lay_out_sections(self.plan, self.pass_, (section,)))

    def stages(self, first: int, count: int) -> list[Laid]:
        """A run of `count` steps, the first of which has the context `first` (one step counted as one token)."""
        decoding = self.decoding
        done = (first + count // 2 - self.task.sequence - 1) * self.task.decode / self.number
        past = self.task.sequence + round(done)
        label = f"{first}..{first + count - 1}" if count > 1 else f"{first}"
        if decoding.draft == "early-exit":
            return self._exits(past, count, label)
        found = []
        drafts = self._draft(past)
        if drafts:
            segments, times = drafts
            found.append((Stage(f"draft[{label}]", StageKind.DRAFT, (_wave(segments, 0),), count * times), [segments]))
        p = self._pass(decoding.nodes + 1, past, every=True)
        segments = lay_out(self.target, p)
        tokens = round(self.task.decode * p.sequences / self.number)
        found.append((Stage(f"verify[{label}]", StageKind.VERIFY, (_wave(segments, tokens),), count), [segments]))
        return found

    def _pass(self, new: int, past: int, *, every: bool) -> Pass:
        batch = self.pass_.sequences
        return replace(self.pass_, groups=(SequenceGroup(batch, new, past),), every_logit=every)

    def _draft(self, past: int) -> tuple[list[EqualLayers], int] | None:
        """What makes the drafted tokens of a step, and how often it runs."""
        match self.decoding.draft:
            case "lookup":
                return None
            case "medusa":
                return self._heads(), 1
            case "eagle":
                widest = max(1, self.decoding.nodes // self.decoding.positions)
                return self._layers(self._pass(widest, past, every=True)), self.decoding.positions
        return self._layers(self._pass(1, past, every=False)), self.decoding.positions

    def _exits(self, past: int, count: int, label: str) -> list[Laid]:
        """Tokens that leave early, and those that take every layer."""
        early = round(count * self.decoding.acceptance[0])
        found = []
        for name, kind, plan, number in (
            ("exit", StageKind.DRAFT, self.plan, early),
            ("decode", StageKind.VERIFY, self.target, count - early),
        ):
            if number:
                p = self._pass(1, past, every=False)
                segments = lay_out(plan, p)
                segments = _named(segments) if kind is StageKind.DRAFT else segments
                stage = Stage(f"{name}[{label}]", kind, (_wave(segments, p.sequences),), number)
                found.append((stage, [segments]))
        return found

    def weights(self, found: tuple[Weight, ...]) -> tuple[Weight, ...]:
        """Of the weights of the draft's blocks those that are not the target's: embedding and head may be shared."""
        if self.decoding.draft not in JOINING:
            return found
        times = self.decoding.positions if self.decoding.draft == "mtp" else 1
        return tuple(
            replace(w, layers=w.layers * times) for w in found if w.part not in ("embedding", "head", "normalization")
        )

    def memory(self, blocks: tuple[BlockMemory, ...]) -> tuple[BlockMemory, ...]:
        """What the draft's blocks keep: multi-token prediction has them once for each position."""
        times = self.decoding.positions if self.decoding.draft == "mtp" else 1
        return tuple(
            replace(b, states=Footprint(**{part: times * size_B for part, size_B in b.states.parts().items()}))
            for b in blocks
        )

    def workspace(self, segments: Sequence[EqualLayers], known: Sequence[BlockMemory]) -> tuple[BlockMemory, ...]:
        """Blocks that draft with the target's own weights: workspace alone."""
        names = {block.block for block in known}
        found = {s.name: s for s in segments if s.name not in names}
        return tuple(
            BlockMemory(name, s.kind, s.count, Footprint(), workspace_B=s.workspace_B) for name, s in found.items()
        )


def _planes(weights: str, planes: int) -> str:
    """The format that so many planes of a weight are read in."""
    form = format_of(weights)
    if planes >= form.bits:
        what = f"the draft reads fewer planes than the {form.bits} that the weights have"
        fail(what, key="planes", value=planes, fix=f"Choose 1 to {form.bits - 1}.")
    return weights.replace(form.element, f"int{planes}", 1) if form.element.startswith("int") else f"planes-{planes}"


def _named(segments: list[EqualLayers]) -> list[EqualLayers]:
    return [replace(segment, name=f"{PREFIX}{segment.name}") for segment in segments]


def _wave(segments: list[EqualLayers], tokens: int) -> Wave:
    return Wave(tuple(s.forward() for s in segments if s.layout.tape.operators), 1, tokens)
