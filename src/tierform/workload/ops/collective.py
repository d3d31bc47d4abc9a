"""What the chips of a tensor group tell each other.

A layer's cut parts begin with :func:`enter` and end with :func:`leave` (f and g of Shoeybi et al., 2019).

Tensor parallelism      enter   y = x                   backward: dx is the all-reduce of dy
                        leave   y = all-reduce of x     backward: dx = dy
with sequence parallelism (Korthikanti et al., 2022; x outside has a part of the tokens)
                        enter   y = all-gather of x     backward: dx is the reduce-scatter of dy
                        leave   y = reduce-scatter      backward: dx is the all-gather of dy

Experts on other copies of the model (:mod:`tierform.workload.spread`)
                        exchange  y = all-to-all of x   backward: dx is the all-to-all of dy

What an all-gather has made is not kept for the backward pass: it is gathered again.  :func:`collect` gathers a result.
"""

from __future__ import annotations

from tierform.workload.operator import Kind, Origin, Shard
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value


def enter(tape: Tape, x: Value, tokens: int, name: str) -> Value:
    """X for use by cut weights or heads, or on partial sums, with all `tokens` of it."""
    if tape.tensor == 1:
        return x
    if tape.sequence:
        y = tape.value(f"{name}.gathered", (tokens, *x.shape[1:]), role=x.role, precision=x.precision)
        return _emit(tape, f"{name}.all_gather", "all_gather", x, y, "reduce_scatter", again=True)
    y = x.view()

    def backward(reverse: Reverse, dy: Value) -> None:
        _return(reverse, f"{name}.grad_input.all_reduce", "all_reduce", x, dy)

    return tape.view(x, y, backward)


def leave(tape: Tape, x: Value, tokens: int, name: str) -> Value:
    """The sum of all chips' parts of x."""
    if tape.tensor == 1:
        return x
    if tape.sequence:
        y = tape.value(f"{name}.reduced", (tape.local(tokens), *x.shape[1:]), role=x.role, precision=x.precision)
        return _emit(tape, f"{name}.reduce_scatter", "reduce_scatter", x, y, "all_gather")
    return all_reduce(tape, x, name)


def all_reduce(tape: Tape, x: Value, name: str) -> Value:
    """The sum of all chips' x, on every chip."""
    y = tape.value(f"{name}.reduced", x.shape, role=x.role, precision=x.precision)
    return _emit(tape, f"{name}.all_reduce", "all_reduce", x, y, "")


def collect(tape: Tape, x: Value, tokens: int, name: str) -> Value:
    """All tokens of x on every chip, for what every chip then does whole; its gradient is this chip's slice."""
    if not tape.sequence:
        return x
    y = tape.value(f"{name}.gathered", (tokens, *x.shape[1:]), role=x.role, precision=x.precision)
    return _emit(tape, f"{name}.all_gather", "all_gather", x, y, "slice", again=True)


def gather_features(tape: Tape, x: Value, width: int, name: str) -> Value:
    """All `width` features of a result that is cut by features, on every chip; its gradient is this chip's slice."""
    if tape.tensor == 1 or not x.cut:
        return x
    y = tape.value(f"{name}.gathered", (*x.shape[:-1], width), role=x.role, precision=x.precision)
    return _emit(tape, f"{name}.all_gather", "all_gather", x, y, "slice")


def exchange(tape: Tape, x: Value, name: str, members: int) -> Value:
    """Rows of x, each sent to the copy of the model that holds its expert (or back), among so many."""
    y = tape.value(f"{name}.exchanged", x.shape, role=x.role, precision=x.precision)

    def backward(reverse: Reverse, dy: Value) -> None:
        if x.grad:
            dx = reverse.gradient_of(x)
            reverse.emit(
                f"{name}.grad_input.all_to_all",
                Kind.COLLECTIVE,
                (dy,),
                dx,
                part="other",
                per_element=0.0,
                origin=Origin.COLLECTIVE,
                collective="all_to_all",
                members=members,
            )
            reverse.arrive(x, dx)

    return tape.emit(
        f"{name}.all_to_all",
        Kind.COLLECTIVE,
        "other",
        (x,),
        y,
        per_element=0.0,
        origin=Origin.COLLECTIVE,
        shard=Shard.WHOLE,
        collective="all_to_all",
        members=members,
        backward=backward,
    )


def _emit(tape: Tape, name: str, collective: str, x: Value, y: Value, back: str, *, again: bool = False) -> Value:
    def backward(reverse: Reverse, dy: Value) -> None:
        if not x.grad:
            return
        if back == "slice":
            dx = reverse.gradient_of(x)
            dx.after = dy.after
            reverse.arrive(x, dx)
        elif back:
            _return(reverse, f"{name}.grad_input", back, x, dy)
        else:
            reverse.arrive(x, dy)

    return tape.emit(
        name,
        Kind.COLLECTIVE,
        "other",
        (x,),
        y,
        per_element=0.0,
        origin=Origin.COLLECTIVE,
        shard=Shard.WHOLE,
        collective=collective,
        again=again,
        backward=backward,
    )


def _return(reverse: Reverse, name: str, collective: str, x: Value, dy: Value) -> None:
    if x.grad:
        dx = reverse.gradient_of(x)
        reverse.emit(
            name,
            Kind.COLLECTIVE,
            (dy,),
            dx,
            part="other",
            per_element=0.0,
            origin=Origin.COLLECTIVE,
            collective=collective,
        )
        reverse.arrive(x, dx)
