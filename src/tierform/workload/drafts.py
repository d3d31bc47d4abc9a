"""What drafts tokens, as models and sections that are laid out like any other (`tierform.workload.decoding`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.errors import Problem, TierformError
from tierform.workload.decoding import Decoding
from tierform.workload.layers import Pass, Section, Streams
from tierform.workload.ops import activation, add, linear
from tierform.workload.reduced import without
from tierform.workload.tape import Tape

if TYPE_CHECKING:
    from tierform.workload.models import Model


def decoding_problems(model: Model, decoding: Decoding, sequence: int, pipeline: int) -> list[Problem]:
    """What a decoding asks for and cannot have of its model."""
    problems = []
    if model.kind != "decoder" or not model.generative:
        problems.append(Problem("drafts are for decoders that generate", key="draft", value=model.name))
    if pipeline > 1:
        problems.append(Problem("drafts are not cut into a pipeline", key="pipeline", value=pipeline))
    if decoding.nodes >= sequence > 1:
        what = f"a step drafts no more tokens than the prompt has ({sequence})"
        problems.append(Problem(what, key="tokens", value=decoding.nodes, fix="Draft fewer, or give a longer prompt."))
    if decoding.exit_layer >= model.layers:
        what = f"an early exit lies before the last of {model.layers} layers"
        problems.append(Problem(what, key="exit_layer", value=decoding.exit_layer))
    return problems


def draft_model(model: Model, decoding: Decoding) -> Model:
    """The model whose passes draft; TierformError where it cannot draft for this one."""
    from tierform.workload.models import load_model

    match decoding.draft:
        case "model":
            found = load_model(decoding.model)
            if found.vocabulary != model.vocabulary:
                what = (
                    f"a draft needs the vocabulary of its target: {found.name} has {found.vocabulary:,} tokens, "
                    f"{model.name} {model.vocabulary:,}"
                )
                raise TierformError([Problem(what, key="model", value=decoding.model)])
            return found
        case "skip":
            return without(model, attention=decoding.skip)
        case "early-exit":
            return without(model, layers=f"{decoding.exit_layer}-{model.layers - 1}")
        case "eagle" | "mtp":
            gone = f"1-{model.layers - 1}"
            return without(model, layers=gone) if model.layers > 1 else model
    return model


def heads_section(model: Model, p: Pass, heads: int) -> Section:
    """Medusa's heads on the last hidden state: a residual layer and a product with a head of its own, each."""

    def build(tape: Tape, streams: Streams) -> Streams:
        x = tape.value("hidden", (p.sequences, model.hidden_size))
        y = linear(tape, x, "medusa.inner", model.hidden_size, "head", quantizable=False)
        y = activation(tape, y, "medusa.activation", "silu", "head")
        y = add(tape, x, y, "medusa.residual", "head")
        logits = linear(tape, y, "medusa.logits", model.vocabulary, "head", quantizable=False)
        return {"logits": logits}

    return Section("heads", heads, build, 0)


def joining_section(model: Model, p: Pass) -> Section:
    """What EAGLE's layer and a layer of multi-token prediction begin with: two hidden states of a token become one.

    The last state of the target and the embedding of the drafted token, side by side, times a matrix (hidden, 2 hidden)
    (Li et al., EAGLE, 2024; DeepSeek-V3, 2024).
    """

    def build(tape: Tape, streams: Streams) -> Streams:
        both = tape.value("joined", (p.tokens, 2 * model.hidden_size))
        return {"x": linear(tape, both, "joining", model.hidden_size, "other", quantizable=False)}

    return Section("joining", 1, build, 0)
