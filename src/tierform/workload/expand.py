"""Turns a model and a task into operators: the forward pass, its backward pass, the optimizer's update.

Passes: inference is one prefill and runs of decode steps; a step is one pass over given sequences; training is
forward, backward and update of one optimizer step.  The batch of a pass is cut into micro-batches; where they are
uneven they form waves of equal ones.  Gradient accumulation repeats the forward and backward stages; between the
groups of a pipeline its parts follow each other as more micro-batches of one pass.

Choices, stated: prefill computes the logits of each sequence's last token only, attention behind a sliding window is
counted within the window, and sequences with a past use latent attention with absorbed up-projections; ``eager=True``
counts what the Hugging Face eager code computes instead.  Embedding gradients are dense, as in PyTorch.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

from tierform.errors import fail
from tierform.workload.adapter_methods import PromptTuning
from tierform.workload.admission import Steady
from tierform.workload.autograd import NONE, Habits, with_main_gradients
from tierform.workload.checks import check_task, farthest_token
from tierform.workload.drafted import Drafted
from tierform.workload.expert_store import store_of
from tierform.workload.experts import shares
from tierform.workload.footprint import kv_layer_B, states_of
from tierform.workload.graph import Block, Stage, StageKind, Wave, Weight, Workload
from tierform.workload.layers import Pass
from tierform.workload.layout import EqualLayers, Plan, borrowed_by, lay_out, weights_of
from tierform.workload.memory import BlockMemory, Borrowed, even_cut
from tierform.workload.methods import optimizer_of
from tierform.workload.models import Model
from tierform.workload.operator import Phase, Role
from tierform.workload.ops.optimizer import update_operators
from tierform.workload.parallel import (
    ALONE,
    ONE_PART,
    MicroBatches,
    Parallelism,
    parts_of,
)
from tierform.workload.reductions import reduction_blocks
from tierform.workload.sharding import backward_stages, gathered_B, sharded_backward, unscattered_B, with_gathers
from tierform.workload.task import FineTuning, Inference, SequenceGroup, Step, Task, resolved_precision
from tierform.workload.teacher import teaching

AttentionMemory = Literal["fused", "tiled", "eager"]
ATTENTIONS = ("fused", "tiled", "eager")
# Decode steps are grouped in runs: at most about so many, and none shorter than lengthens the context by so much.
DECODE_RUNS = 16
DECODE_GROWTH = 0.04
REMEMBERED = 1024  # workloads
Memory = tuple[BlockMemory, ...]


def expand(
    model: Model,
    task: Task,
    micro_batches: MicroBatches = ONE_PART,
    *,
    parallelism: Parallelism = ALONE,
    eager: bool = False,
    attention: AttentionMemory = "tiled",
    in_turn: bool = False,
    length_spread: float = 0.0,
    habits: Habits = NONE,
) -> Workload:
    """The operators of `task` on `model`, as one of the chips of one copy runs them.

    `micro_batches` cuts the batch (of one copy) of each phase into parts.  `attention` says what attention keeps in
    memory: ``tiled`` makes scores block by block and keeps the probabilities for backward, ``fused`` (FlashAttention)
    keeps neither, ``eager`` holds whole scores.  `in_turn`: prompts join the steps of those that decode
    (:mod:`tierform.workload.admission`), and `length_spread` is the spread of generations over their mean.  `habits`
    say what a framework keeps beside (:mod:`tierform.workload.autograd`).  Raises TierformError, with every problem,
    where parts or chips do not divide the task, the sequence does not fit the model, or nothing would learn.  Equal
    arguments give the same object: it is remembered.
    """
    if attention not in ATTENTIONS:
        fail("not a way to do attention", key="attention", value=attention, choices=ATTENTIONS)
    steady = Steady(length_spread) if in_turn else None
    return _expand(model, task, micro_batches, parallelism, eager, attention, steady, habits)


@lru_cache(maxsize=REMEMBERED)
def _expand(
    model: Model,
    task: Task,
    micro_batches: MicroBatches,
    parallelism: Parallelism,
    eager: bool,
    attention: str,
    steady: Steady | None,
    habits: Habits,
) -> Workload:
    if model.folder:
        from tierform.workload.tracing.folder import load_traced

        return load_traced(model.folder, task, parallelism=parallelism)
    check_task(model, task, micro_batches, parallelism)
    plan = Plan(model, task, resolved_precision(task), parallelism, attention, habits=habits)
    if isinstance(task, FineTuning):
        plan = replace(plan, precision=with_main_gradients(plan.precision, habits))
        return _training(plan, task, micro_batches.training, eager)
    if isinstance(task, Step):
        return _step(plan, task, micro_batches, eager)
    return _inference(plan, task, micro_batches, eager, steady)


def count_parameters(model: Model) -> tuple[int, int]:
    """(all parameters, those that one token uses) of a model without adapters."""
    task = Inference(batch=1, sequence=1)
    segments = lay_out(Plan(model, task, resolved_precision(task)), Pass((SequenceGroup(),), encoder_tokens=1))
    weights = weights_of(segments)
    return sum(w.total for w in weights), sum(w.elements * w.active * w.layers for w in weights)


# -- inference ---------------------------------------------------------------------------------------------------
def _inference(
    plan: Plan, task: Inference, micro_batches: MicroBatches, eager: bool, steady: Steady | None = None
) -> Workload:
    model = plan.model
    batch = task.batch // plan.parallelism.data
    sequence = (model.fixed_tokens or task.sequence) // plan.parallelism.context
    two = model.kind == "encoder-decoder"
    prompt = Pass(
        (SequenceGroup(batch, 1 if two and not eager else sequence),),
        encoder_tokens=sequence,
        cached=model.generative,
        eager=eager,
        kv=task.kv,
        experts=store_of(task.experts, model),
    )
    first_pass, times, alone, stretch = prompt, 1, task.decode, 1.0
    if steady is not None and task.prefill and task.decode and task.decoding is None and not two and not eager:
        first_pass, times = steady.admitted(prompt, sequence, task.decode)
        alone, stretch = alone - times, steady.stretch
    fixed = sequence if first_pass is prompt else 0
    parts = micro_batches.prefill if task.prefill else 1
    found = [_run(plan, first_pass, "prefill", StageKind.PREFILL, times, parts, fixed)]
    start = 1 if two else sequence + (task.decode - alone) // 2
    if task.decoding is not None and task.decode:
        return _drafted(plan, task, prompt, found, eager)
    for first, count in _decode_runs(start + 1, alone, model.sliding_window if not eager else 0):
        past = sequence + int(stretch * (first + count // 2 - 1 - sequence)) if stretch > 1 else first + count // 2 - 1
        p = replace(prompt, groups=(SequenceGroup(batch, 1, past),))
        name = f"decode[{first}..{first + count - 1}]" if count > 1 else f"decode[{first}]"
        found.append(_run(plan, p, name, StageKind.DECODE, count, micro_batches.decode))
    used = found if task.prefill else found[1:]
    return _without_update(plan, used, found[0][1][0], eager)


def _drafted(
    plan: Plan, task: Inference, prompt: Pass, found: list[tuple[Stage, list[list[EqualLayers]]]], eager: bool
) -> Workload:
    """Prompt, then steps of drafting and verifying; the draft's own weights and cache stand beside the target's."""
    decoding = task.decoding
    assert decoding is not None
    steps = Drafted(plan, task, decoding, prompt)
    own = steps.prompt()
    target, beside = found[0][1][0], own[0][1][0] if own else []
    stages = [*found, *own] if task.prefill else []
    memory = (*_memory(plan, [waves for _, waves in found], target, weights_of(target), eager),)
    for first, count in _decode_runs(task.sequence + 1, steps.number, 0):
        stages += steps.stages(first, count)
    drafting = steps.weights(weights_of(beside)) if beside else ()
    if beside:
        memory += steps.memory(_memory(steps.plan, [waves for _, waves in own], beside, drafting, eager))
    weights = (*weights_of(target), *drafting)
    memory += steps.workspace([segment for _, waves in stages for wave in waves for segment in wave], memory)
    return _workload(plan, [stage for stage, _ in stages], weights, memory, eager)


def _step(plan: Plan, task: Step, micro_batches: MicroBatches, eager: bool) -> Workload:
    data = plan.parallelism.data
    groups = tuple(replace(group, sequences=group.sequences // data) for group in task.groups)
    every = task.logits == "all"
    cached = plan.model.generative
    p = Pass(
        groups, cached=cached, every_logit=every, eager=eager, kv=task.kv, experts=store_of(task.experts, plan.model)
    )
    kind = StageKind.DECODE if p.continues else StageKind.PREFILL
    parts = micro_batches.decode if p.continues else micro_batches.prefill
    stage, waves = _run(plan, p, "step", kind, 1, parts)
    return _without_update(plan, [(stage, waves)], waves[0], eager)


def _run(
    plan: Plan, p: Pass, name: str, kind: StageKind, repeat: int, parts: int, fixed: int = 0
) -> tuple[Stage, list[list[EqualLayers]]]:
    """A stage of inference; `fixed` tokens of each sequence count for rates (an encoder's), else its new ones."""
    waves, laid_out = [], []
    for part, number in _parts(plan, p, parts):
        segments = lay_out(plan, part)
        tokens = part.sequences * fixed if fixed else part.tokens
        waves.append(Wave(tuple(_forward(segments)), number, tokens))
        laid_out.append(segments)
    return Stage(name, kind, tuple(waves), repeat), laid_out


def _parts(plan: Plan, p: Pass, parts: int) -> list[tuple[Pass, int]]:
    """[(pass of one micro-batch, how many)], all with the same operators."""
    made = [
        (
            replace(
                p,
                groups=tuple(
                    replace(group, sequences=sequences)
                    for group, sequences in zip(p.groups, numbers, strict=True)
                    if sequences
                ),
            ),
            number,
        )
        for numbers, number in parts_of([group.sequences for group in p.groups], parts)
        if any(numbers)  # more parts than a kind has sequences: the last ones hold none
    ]
    if not plan.model.experts or len(made) == 1:
        return made
    experts, chosen = plan.model.experts, plan.model.experts_per_token
    split = any(len(shares(part.tokens, experts, chosen, store=part.experts)) > 1 for part, _ in made)
    return [(replace(part, split_experts=split), number) for part, number in made]


def _forward(segments: list[EqualLayers]) -> list[Block]:
    return [segment.forward() for segment in segments if segment.layout.tape.operators]


def _decode_runs(first: int, steps: int, window: int) -> list[tuple[int, int]]:
    """(first context length, odd number of steps) of each run; no run crosses the sliding window's edge."""
    least = -(-steps // DECODE_RUNS)
    runs, last = [], first + steps - 1
    while first <= last:
        width = max(least, int(first * DECODE_GROWTH))
        width += 1 - width % 2
        edge = min(last, window) if window and first <= window else last
        count = min(width, edge - first + 1)
        count -= 1 - count % 2
        runs.append((first, count))
        first += count
    return runs


# -- training ----------------------------------------------------------------------------------------------------
def _training(plan: Plan, task: FineTuning, parts: int, eager: bool) -> Workload:
    model, split = plan.model, plan.parallelism
    sequence = model.fixed_tokens or task.sequence
    if isinstance(task.method, PromptTuning):
        sequence += task.method.tokens
    sequence //= split.context
    repeat, more = task.gradient_accumulation, 1
    if split.pipeline > 1:
        repeat, more = 1, task.gradient_accumulation
    accumulate = parts * task.gradient_accumulation > 1
    plan = replace(plan, accumulate=accumulate and split.zero < 2)  # sharded gradients are added up in shards
    group = SequenceGroup(task.batch // split.data, sequence)
    whole = Pass((group,), encoder_tokens=sequence, training=True, eager=eager)
    waves = [(p, number * more, lay_out(plan, p)) for p, number in _parts(plan, whole, parts)]
    laid_out = [segments for _, _, segments in waves]
    weights = weights_of(laid_out[0])
    forward, backward = [], []
    for p, number, segments in waves:
        there = tuple(with_gathers(block, weights, split, Phase.FORWARD) for block in _forward(segments))
        forward.append(Wave(there, number, p.tokens))
        reverse = (s.backward() for s in reversed(segments) if s.gradients.operators)
        back = tuple(sharded_backward(block, weights, plan.precision, split, accumulate) for block in reverse)
        backward.append(Wave(back, number, p.tokens))
    if not any(w.trainable for w in weights):
        fail(
            f"nothing would learn: {model.name} has no parameter that {type(task.method).__name__} trains",
            key="method",
            value=type(task.method).__name__,
            fix="Choose other targets or another method, for example LoRA on q and v.",
        )
    memory = _memory(plan, [laid_out], laid_out[0], weights, eager)
    update = _update(plan, task, laid_out[0], weights, memory)
    taught = teaching(plan, task, whole, repeat)
    if taught is not None:
        weights, memory = (*weights, *taught.weights), (*memory, *taught.memory)
    stages = [
        *([taught.stage] if taught is not None else []),
        Stage("forward", StageKind.FORWARD, tuple(forward), repeat),
        *backward_stages(backward, repeat, weights, plan.precision, split),
        Stage("update", StageKind.UPDATE, (Wave(update),)),
    ]
    return _workload(plan, stages, weights, memory, eager)


def _update(
    plan: Plan, task: FineTuning, segments: list[EqualLayers], weights: tuple[Weight, ...], memory: Memory
) -> tuple[Block, ...]:
    blocks = []
    copied = borrowed_by(segments) if plan.parallelism.pipeline > 1 else {}
    for segment in segments:
        own = [w for w in weights if w.trainable and w.block == segment.name]
        own += [w for w in copied.get(segment.name, ()) if w.trainable]
        if own:
            copies = plan.parallelism.copies if plan.parallelism.zero else 1
            operators = update_operators(own, optimizer_of(task), plan.precision, copies)
            blocks.append(Block(segment.name, segment.count, operators, segment.kind))
    before, after = reduction_blocks(weights, memory, plan.precision, plan.parallelism)
    return (*before, *blocks, *after)


# -- the whole ---------------------------------------------------------------------------------------------------
def _without_update(
    plan: Plan, found: list[tuple[Stage, list[list[EqualLayers]]]], segments: list[EqualLayers], eager: bool
) -> Workload:
    """The workload of inference stages; `segments` has every block."""
    weights = weights_of(segments)
    memory = _memory(plan, [waves for _, waves in found], segments, weights, eager)
    return _workload(plan, [stage for stage, _ in found], weights, memory, eager)


def _workload(plan: Plan, stages: list[Stage], weights: tuple[Weight, ...], memory: Memory, eager: bool) -> Workload:
    even_cut(memory, plan.parallelism.parts)
    return Workload(
        model=plan.model,
        task=plan.task,
        stages=tuple(stages),
        parameters=sum(w.whole_total for w in weights),
        trainable_parameters=sum(w.whole_total for w in weights if w.trainable),
        weights=weights,
        memory=memory,
        parallelism=plan.parallelism,
        notes=_notes(plan, eager),
    )


def _memory(
    plan: Plan,
    laid_out: list[list[list[EqualLayers]]],
    segments: list[EqualLayers],
    weights: tuple[Weight, ...],
    eager: bool,
) -> Memory:
    """What a layer of each block keeps; `laid_out` has the waves of each stage."""
    model, task, split = plan.model, plan.task, plan.parallelism
    cache = kv_layer_B(model, task, plan.precision, split, eager=eager)
    workspace: dict[str, int] = {}
    for waves in laid_out:
        for segment in (segment for wave in waves for segment in wave):
            workspace[segment.name] = max(workspace.get(segment.name, 0), segment.workspace_B)
    saved: dict[str, tuple[int, ...]] = {}
    if isinstance(task, FineTuning):
        for parts in zip(*laid_out[0], strict=True):
            saved[parts[0].name] = tuple(segment.layout.saved_B for segment in parts)
    found = []
    borrowed = borrowed_by(segments)
    for segment in segments:
        own = [w for w in weights if w.block == segment.name]
        held = cache if _writes_cache(segment) and model.generative else 0
        states = states_of(own, task, plan.precision, held, split)
        layer, whole = segment.layered, gathered_B(own, split)
        made_B = 0
        if isinstance(task, FineTuning) and task.fused_update:
            made_B = states.gradients
            states = replace(states, gradients=0)
        found.append(
            BlockMemory(
                segment.name,
                segment.kind,
                segment.count,
                states,
                saved_B=saved.get(segment.name, ()),
                workspace_B=workspace.get(segment.name, 0),
                moving_B=unscattered_B(own, plan.precision, split) + (whole if layer else 0) + made_B,
                root_B=0 if layer else whole,
                borrowed=tuple(
                    Borrowed(w.name, w.block, states_of([w], task, plan.precision, 0, split))
                    for w in borrowed.get(segment.name, ())
                ),
            )
        )
    return tuple(found)


def _writes_cache(segment: EqualLayers) -> bool:
    return any(operand.role is Role.KV_CACHE for o in segment.layout.tape.operators for operand in o.outputs)


def _notes(plan: Plan, eager: bool) -> tuple[str, ...]:
    model, task = plan.model, plan.task
    notes = []
    if model.fixed_tokens and not isinstance(task, Step) and task.sequence != model.fixed_tokens:
        notes.append(f"{model.name} fixes its sequence at {model.fixed_tokens} tokens")
    farthest = farthest_token(model, task)
    if model.positions == "rotary" and 0 < model.max_positions < farthest:
        notes.append(f"{model.name} was made for {model.max_positions:,} tokens: costs hold, its answers may not")
    store = task.experts if isinstance(task, (Inference, Step)) else None
    if model.experts:
        uneven = "the family's published" if model.expert_decay else "uniform"
        routing = "the given" if store is not None and store.routing else uneven
        notes.append(f"experts touched: expected number under {routing} independent routing")
    last = isinstance(task, Inference) or (isinstance(task, Step) and task.logits == "last")
    if last and model.generative and not eager:
        notes.append("logits of the last token only")
    if plan.attention == "fused" and plan.recomputation.startswith("selective"):
        notes.append("fused attention already rebuilds its scores: selective recomputation adds nothing")
    return tuple(notes)
