"""The spatio-temporal encoders of HpT: stations as tokens, a regression over all of them (Dahal et al., 2024).

Each token's features pass through two dense layers to the model's width, then through post-normalized ReLU encoder
layers.  The embedded input skips the stack and joins its output (concatenated, or added where the published shapes
leave no room for concatenation), dense layers narrow every token, and a dense decoder reads all tokens at once.  Sizes
are those of the published code, whose parameter totals they give exactly; what its loops compute by accident of tensor
shapes (attention over a batch of single stations) is not repeated.
"""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.bert import finish, layer
from tierform.workload.layers import Pass, Section, Streams
from tierform.workload.models import Model
from tierform.workload.ops import activation, add, collect, concatenate, dropout, linear
from tierform.workload.tape import Tape, Value

HEADS = ("regression",)


def read(config: Config, name: str) -> Model:
    """Keys: num_tokens, input_size, hidden_size, layers, heads, intermediate_size, the widths of the dense layers."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    config.divides(hidden, heads, "num_attention_heads", "hidden_size")
    dropout = config.number("hidden_dropout_prob", default=0.1)
    return Model(
        name=name,
        family="hpt",
        kind="spatio-temporal",
        layers=config.layers("num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn_size=config.integer("intermediate_size"),
        activation="relu",
        norm_position="post",
        positions="sinusoidal",
        attention_bias=True,
        output_bias=True,
        ffn_bias=True,
        input_size=config.integer("input_size"),
        fixed_tokens=config.integer("num_tokens"),
        embedding_widths=config.integers("embedding_widths"),
        reduction_widths=config.integers("reduction_widths"),
        decoder_widths=config.integers("decoder_widths"),
        skip=config.choice("skip", {"concatenate": "concatenate", "add": "add"}, "concatenate"),
        head="regression",
        dropout=dropout,
        embedding_dropout=config.number("embedding_dropout_prob", default=dropout),
    )


def _dense(tape: Tape, x: Value, widths: tuple[int, ...], name: str, function: str, part: str, *, last: bool) -> Value:
    """Dense layers of these widths with an activation between them (and after the last where `last`)."""
    for index, width in enumerate(widths, 1):
        x = linear(tape, x, f"{name}_{index}", width, part, bias=True, quantizable=False)
        if last or index < len(widths):
            x = activation(tape, x, f"{name}_{index}.activation", function, part)
    return x


def _start(tape: Tape, model: Model, p: Pass) -> Streams:
    inputs = tape.value("stations", (tape.local(p.tokens), model.input_size))
    widths = (*model.embedding_widths, model.hidden_size)
    x = _dense(tape, inputs, widths, "embedding.input", "gelu", "embedding", last=True)
    places = tape.value("embedding.sinusoids", (tape.local(model.fixed_tokens), model.hidden_size))
    y = add(tape, x, places, "embedding.position_add", "embedding")
    return {"x": dropout(tape, y, "embedding.dropout", "embedding", model.embedding_dropout), "skip": x}


def _end(tape: Tape, model: Model, p: Pass, s: Streams) -> Streams:
    x, skip = s["x"], s["skip"]
    if model.skip == "add":
        x = add(tape, x, skip, "head.skip_add", "head")
    else:
        shape = (x.shape[0], 2 * model.hidden_size)
        x = concatenate(tape, x, skip, "head.skip_concat", "head", shape, result="head.joined")
    x = _dense(tape, x, model.reduction_widths, "head.reduction", "relu", "head", last=True)
    x = collect(tape, x, p.tokens, "head.decoder")
    x.shape = (p.sequences, model.fixed_tokens * model.reduction_widths[-1])
    x = _dense(tape, x, model.decoder_widths, "head.decoder", "gelu", "head", last=False)
    return finish(tape, model, [x])


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Input layers, encoder layers, dimension reduction and decoder."""
    return (
        Section("embedding", 1, lambda tape, _: _start(tape, model, p)),
        Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"]), "skip": s["skip"]}, 0),
        Section("head", 1, lambda tape, s: _end(tape, model, p, s)),
    )


HPT = Family("hpt", read, plan, HEADS)
