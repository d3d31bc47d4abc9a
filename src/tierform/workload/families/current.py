"""Decoders of 2023 to 2026 that differ from LLaMA by norms, biases, windows or where a branch begins, in one table.

A :class:`Style` says what a family's layers look like; what its configuration states is read in :func:`_read`.  Sources
are the families' reports and the defaults of their configuration classes in `transformers`: Gemma 2 and 3 (Gemma Team,
2024, 2025), Phi-1 to 2 (2023), GLM-4 (2024), OLMo 1 to 3 (AI2, 2024, 2025), StarCoder2 (2024), Cohere (2024), Nemotron
(2024), StableLM (2024), GPT-NeoX (2022), Exaone 4, Ernie 4.5, Seed-OSS, Arcee, Hunyuan (2025).

Layers with and without a sliding window are sections of their own.  Limits: constants that scale or cap logits are not
counted; rotary positions are counted in every layer and over the whole head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tierform.workload.config import Config
from tierform.workload.experts import mixture
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS, decoder_plan
from tierform.workload.families.llama import ACTIVATIONS as GATED
from tierform.workload.families.mixtral import read_experts
from tierform.workload.layers import Pass, Section, attention, feed_forward, normed, residual
from tierform.workload.models import Model
from tierform.workload.ops import add
from tierform.workload.tape import Tape, Value

ACTIVATIONS = {**GATED, "gelu_new": "gelu_new", "relu2": "relu", "gelu_fast": "gelu_new", "quick_gelu": "gelu"}


@dataclass(frozen=True, slots=True)
class Style:
    """What a family's layers look like, and the defaults of its configuration.

    `place` is the model's norm_position; ``parallel`` has both branches side by side behind one norm, ``parallel-two``
    behind one each.  `biases` are of query, key and value, of the output, and of the FFN: a key of the configuration,
    or a fixed truth.  `local` tells whether a layer of an index has the window.  `experts`, `expert_size`, `shared` and
    `dense_first` are keys of the configuration.
    """

    gated: bool = True
    norm: str = "rmsnorm"
    norm_bias: bool = True
    norm_gain: bool = True
    place: str = "pre"
    biases: tuple[str | bool, str | bool, str | bool] = ("attention_bias", "attention_bias", "mlp_bias")
    qk_norm: str | bool = False
    qk_norm_whole: bool = False
    tied: bool = False
    head_dim: int = 0
    activation: str = "silu"
    local: Callable[[int], bool] | None = None
    window: int = 0
    inner: str = "intermediate_size"
    inner_times: int = 0
    head_bias: bool = False
    experts: str = ""
    expert_size: str = "moe_intermediate_size"
    shared: str = ""
    dense_first: str = ""


ALL_BUT_FIRST = ("attention_bias", False, False)
NOT_FFN = ("attention_bias", "attention_bias", False)
USED = ("use_bias", "use_bias", "use_bias")
TANH = "gelu_pytorch_tanh"


def every(number: int) -> Callable[[int], bool]:
    """Whether a layer is local where every so many-th one is not."""
    return lambda index: (index + 1) % number != 0


STYLES: dict[str, Style] = {
    "gemma2": Style(place="sandwich", tied=True, head_dim=256, activation=TANH, local=every(2), window=4096),
    "gemma3_text": Style(
        place="sandwich",
        tied=True,
        head_dim=256,
        activation=TANH,
        qk_norm=True,
        local=every(6),
        window=4096,
    ),
    "glm": Style(biases=ALL_BUT_FIRST, head_dim=128),
    "glm4": Style(place="sandwich", biases=ALL_BUT_FIRST, head_dim=128),
    "olmo": Style(norm="layernorm", norm_bias=False, norm_gain=False),
    "olmo2": Style(place="after", qk_norm=True, qk_norm_whole=True),
    "olmo3": Style(place="after", qk_norm=True, qk_norm_whole=True, local=every(4), window=4096),
    "exaone4": Style(place="after", qk_norm=True, biases=(False, False, False), local=every(4), window=4096),
    "starcoder2": Style(gated=False, norm="layernorm", biases=USED, tied=True, activation=TANH),
    "cohere": Style(norm="layernorm", norm_bias=False, place="parallel", tied=True, biases=NOT_FFN),
    "cohere2": Style(
        norm="layernorm",
        norm_bias=False,
        place="parallel",
        tied=True,
        biases=NOT_FFN,
        local=every(4),
        window=4096,
    ),
    "nemotron": Style(gated=False, norm="layernorm", activation="relu2"),
    "arcee": Style(gated=False, activation="relu2"),
    "stablelm": Style(norm="layernorm", biases=("use_qkv_bias", False, False)),
    "phi": Style(
        gated=False,
        norm="layernorm",
        place="parallel",
        biases=(True, True, True),
        activation="gelu_new",
        head_bias=True,
    ),
    "gpt_neox": Style(
        gated=False,
        norm="layernorm",
        place="parallel-two",
        biases=("attention_bias", "attention_bias", True),
        activation="gelu",
    ),
    "ernie4_5": Style(tied=True, biases=USED),
    "seed_oss": Style(biases=("attention_bias", "attention_out_bias", "mlp_bias"), head_dim=128),
    "olmoe": Style(
        qk_norm=True,
        qk_norm_whole=True,
        biases=NOT_FFN,
        experts="num_experts",
        expert_size="intermediate_size",
    ),
    "granitemoe": Style(biases=NOT_FFN, experts="num_local_experts", expert_size="intermediate_size"),
    "glm4_moe": Style(
        biases=ALL_BUT_FIRST,
        qk_norm="use_qk_norm",
        experts="n_routed_experts",
        shared="n_shared_experts",
        dense_first="first_k_dense_replace",
    ),
    "hunyuan_v1_dense": Style(qk_norm=True, biases=NOT_FFN),
}
TRUE = {("starcoder2", "use_bias"), ("gpt_neox", "attention_bias"), ("seed_oss", "attention_bias")}  # left out


def _truth(config: Config, family: str, which: str | bool) -> bool:
    if isinstance(which, bool):
        return which
    return config.flag(which, (family, which) in TRUE)


def _read(config: Config, name: str, family: str) -> Model:
    style = STYLES[family]
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", default=heads)
    config.divides(heads, kv_heads, "num_key_value_heads", "num_attention_heads")
    layers = config.layers("num_hidden_layers")
    query, output, ffn = (_truth(config, family, which) for which in style.biases)
    local, window = _windows(config, style, layers)
    head_dim = config.integer("head_dim", default=style.head_dim or max(1, hidden // heads))
    config.ignore("rope_theta", "rms_norm_eps", "rope_scaling", "rope_parameters", "initializer_range", "norm_eps")
    function = "hidden_activation" if config.has("hidden_activation") else "hidden_act"
    return Model(
        name=name,
        family=family,
        kind="decoder",
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_size=config.integer(style.inner),
        vocabulary=config.integer("vocab_size"),
        activation=config.choice(function, ACTIVATIONS, style.activation),
        gated=style.gated,
        norm=style.norm,
        norm_bias=style.norm_bias,
        norm_gain=style.norm_gain,
        norm_position=style.place,
        positions="rotary",
        max_positions=config.integer("max_position_embeddings", default=8192),
        tied_embeddings=config.flag("tie_word_embeddings", style.tied),
        attention_bias=query,
        output_bias=output,
        ffn_bias=ffn,
        qk_norm=_truth(config, family, style.qk_norm),
        qk_norm_whole=style.qk_norm_whole,
        head_bias=style.head_bias,
        sliding_window=window,
        local_layers=local,
        head=config.head(HEADS, "causal-lm"),
        labels=config.labels(),
        attention_dropout=config.number("attention_dropout", default=0.0),
        **_experts(config, style, layers),
    )


def _experts(config: Config, style: Style, layers: int) -> dict[str, Any]:
    """What a model with experts has beside."""
    if not style.experts:
        return {}
    experts, chosen = read_experts(config, style.experts)
    width = config.integer(style.expert_size)
    shared = config.integer(style.shared, default=0, minimum=0) if style.shared else 0
    first = config.integer(style.dense_first, default=0, minimum=0) if style.dense_first else 0
    return {
        "experts": experts,
        "experts_per_token": chosen,
        "expert_ffn_size": width,
        "shared_experts": shared,
        "shared_ffn_size": shared * width,
        "dense_layers": tuple(range(min(first, layers))),
    }


def _windows(config: Config, style: Style, layers: int) -> tuple[tuple[int, ...], int]:
    """(layers that alone have the window, its width); no layers where all have it, 0 where none does."""
    if style.local is None:
        window = config.integer("sliding_window", default=0, minimum=0)
        return (), window
    window = config.integer("sliding_window", default=style.window, minimum=0)
    stated = config.values.get("layer_types")
    config.ignore("layer_types", "sliding_window_pattern")
    if isinstance(stated, list) and len(stated) == layers:
        local = tuple(index for index, kind in enumerate(stated) if kind == "sliding_attention")
    else:
        local = tuple(index for index in range(layers) if style.local(index))
    return (local, window) if local and window else ((), 0)


def layer(
    tape: Tape, model: Model, p: Pass, x: Value, *, window: int, experts: bool = False, rotated: bool = True
) -> Value:
    """One layer with its norms where the family has them."""

    def mix(inner: Value) -> Value:
        return attention(tape, model, p, inner, rotated=rotated, window=window)

    def widen(inner: Value) -> Value:
        return mixture(tape, model, p, inner) if experts else feed_forward(tape, model, p, inner, model.ffn_size)

    if not model.norm_position.startswith("parallel"):
        x = residual(tape, model, x, mix, "attention")
        return residual(tape, model, x, widen, "ffn", part="ffn")
    first = normed(tape, model, x, "attention_norm")
    second = normed(tape, model, x, "ffn_norm") if model.norm_position == "parallel-two" else first
    y = x
    if "attention" not in tape.left_out:
        y = add(tape, y, mix(first), "attention.residual", "other")
    return y if "ffn" in tape.left_out else add(tape, y, widen(second), "ffn.residual", "other")


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, runs of equal layers, head."""
    near, dense = set(model.local_layers), set(model.dense_layers)
    found: list[Section] = []
    start = 0

    def kind(index: int) -> tuple[bool, bool]:
        return index in near or not near, bool(model.experts) and index not in dense

    while start < model.layers:
        end = start
        while end < model.layers and kind(end) == kind(start):
            end += 1
        local, experts = kind(start)
        name = ("local_" if local and near else "") + ("dense_layer" if model.experts and not experts else "layer")
        build = partial(_build, model, p, model.sliding_window if local else 0, experts)
        found.append(Section(name, end - start, build, start))
        start = end
    return decoder_plan(model, p, tuple(found))


def _build(
    model: Model, p: Pass, window: int, experts: bool, tape: Tape, streams: dict[str, Value]
) -> dict[str, Value]:
    return {"x": layer(tape, model, p, streams["x"], window=window, experts=experts)}


def family(name: str) -> Family:
    """The family of a style."""
    return Family(name, partial(_named, name), plan, HEADS)


def _named(style: str, config: Config, name: str) -> Model:
    return _read(config, name, style)


GEMMA2, GEMMA3, GLM, GLM4 = (family(name) for name in ("gemma2", "gemma3_text", "glm", "glm4"))
OLMO, OLMO2, OLMO3, EXAONE4 = (family(name) for name in ("olmo", "olmo2", "olmo3", "exaone4"))
STARCODER2, COHERE, COHERE2 = (family(name) for name in ("starcoder2", "cohere", "cohere2"))
NEMOTRON, ARCEE, STABLELM = (family(name) for name in ("nemotron", "arcee", "stablelm"))
PHI, GPT_NEOX, ERNIE = (family(name) for name in ("phi", "gpt_neox", "ernie4_5"))
OLMOE, GRANITE_MOE, GLM4_MOE = (family(name) for name in ("olmoe", "granitemoe", "glm4_moe"))
SEED_OSS, HUNYUAN = (family(name) for name in ("seed_oss", "hunyuan_v1_dense"))
