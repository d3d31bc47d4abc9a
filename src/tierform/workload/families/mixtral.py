"""Mixtral: Mistral's layers with routed experts in place of the FFN (Jiang et al., 2024)."""

from __future__ import annotations

from collections.abc import Callable

from tierform.workload.config import Config
from tierform.workload.experts import mixture
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS, decoder_plan
from tierform.workload.families.llama import layer, read_gated_decoder
from tierform.workload.layers import Pass, Section, attention, residual
from tierform.workload.models import Model
from tierform.workload.tape import Tape, Value


def read(config: Config, name: str) -> Model:
    """MixtralConfig's keys."""
    experts, chosen = read_experts(config, "num_local_experts")
    config.ignore("router_aux_loss_coef", "output_router_logits", "router_jitter_noise")
    return read_gated_decoder(
        config,
        name,
        "mixtral",
        experts=experts,
        experts_per_token=chosen,
        expert_ffn_size=config.integer("intermediate_size"),
        sliding_window=config.integer("sliding_window", default=0, minimum=0),
    )


def read_experts(config: Config, key: str) -> tuple[int, int]:
    """(experts, experts per token), the second no more than the first."""
    experts, chosen = config.integer(key, maximum=65536), config.integer("num_experts_per_tok", maximum=65536)
    if chosen > experts:
        config.problem(f"must be at most {key} ({experts})", "num_experts_per_tok", chosen)
    return experts, min(chosen, experts)


def expert_layer(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    """Pre-normalized attention, then experts."""
    x = residual(
        tape,
        model,
        x,
        lambda inner: attention(tape, model, p, inner, rotated=True, window=model.sliding_window),
        "attention",
    )
    return residual(tape, model, x, lambda inner: mixture(tape, model, p, inner), "ffn", part="ffn")


def _run(
    model: Model, p: Pass, build: Callable[[Tape, Model, Pass, Value], Value], name: str, start: int, end: int
) -> Section:
    return Section(name, end - start, lambda tape, s: {"x": build(tape, model, p, s["x"])}, start)


def sections(model: Model, p: Pass) -> tuple[Section, ...]:
    """Runs of dense and of expert layers, in order."""
    dense = set(model.dense_layers)
    found: list[Section] = []
    start = 0
    while start < model.layers:
        is_dense, end = start in dense, start
        while end < model.layers and (end in dense) == is_dense:
            end += 1
        found.append(
            _run(model, p, layer, "dense_layer", start, end)
            if is_dense
            else _run(model, p, expert_layer, "layer", start, end)
        )
        start = end
    return tuple(found)


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head."""
    return decoder_plan(model, p, sections(model, p))


MIXTRAL = Family("mixtral", read, plan, HEADS)
