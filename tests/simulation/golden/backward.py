"""The backward passes and updates of the toy model on the toy GPU, operator by operator; see toy.py."""

from __future__ import annotations

from toy import Row, Table

# One gradient of a matrix of 8 x 8: 2 x 6 x 64 operations, two tensors of six rows read, 128 bytes written; of a bias:
# 48 additions into 8 sums.  The gradient of a product's input reads six rows and the matrix.
_SQUARE_INPUT = Row(2, 2 * 6 * 64, 96 + 128, 96, True)
_SQUARE_WEIGHT = Row(2, 2 * 6 * 64, 96 + 96, 128, True)
_SQUARE_BIAS = Row(2, 6 * 8, 96, 16)
_SUM = Row(2, 48, 96 + 96, 96)
# LayerNorm's input gradient: 11 operations a value, from dy, x and the gain; its gain's 2 x 48, its shift's 48.
_NORM_INPUT = Row(2, 11 * 48, 96 + 96 + 16, 96)
_GAIN = Row(2, 2 * 48, 96 + 96, 16)
_SHIFT = Row(2, 48, 96, 16)

HEAD_BACKWARD: Table = {
    # Three operations for each of 60 logits, from log-probabilities in fp32 (240 bytes) and six targets of 4 bytes.
    "head/loss.grad_input": Row(1, 3 * 60, 240 + 24, 120),
    "head/head.logits.grad_input": Row(1, 2 * 6 * 10 * 8, 120 + 160, 96, True),
    "head/head.norm.grad_input": Row(1, 11 * 48, 96 + 96 + 16, 96),
}
ATTENTION_BACKWARD: Table = {
    # Weighted values: from dy (96) and the values (96) to the probabilities' gradient (72), and from dy and the
    # probabilities to the values' gradient.  Softmax: 5 operations for each of 36, from p and dp.  Scores alike.
    "layer/attention.context.grad_left": Row(2, 288, 96 + 96, 72, True),
    "layer/attention.context.grad_right": Row(2, 288, 96 + 72, 96, True),
    "layer/attention.softmax.grad_input": Row(2, 5 * 36, 72 + 72, 72),
    "layer/attention.scores.grad_left": Row(2, 288, 72 + 96, 96, True),
    "layer/attention.scores.grad_right": Row(2, 288, 72 + 96, 96, True),
}
FFN_BACKWARD: Table = {
    "layer/ffn.down.grad_input": Row(2, 2 * 6 * 8 * 16, 96 + 256, 192, True),
    # ReLU: one operation a value, from dy and its input.
    "layer/ffn.activation.grad_input": Row(2, 96, 192 + 192, 192),
    "layer/ffn.up.grad_input": Row(2, 2 * 6 * 8 * 16, 192 + 256, 96, True),
    "layer/ffn_norm.grad_input": _NORM_INPUT,
    # The gradient around the branch and the one through it are added.
    "layer/attention.residual.out.gradient_add": _SUM,
}
BACKWARD: Table = {
    **HEAD_BACKWARD,
    "head/head.logits.grad_weight": Row(1, 2 * 6 * 10 * 8, 120 + 96, 160, True),
    "head/head.norm.weight.grad_weight": Row(1, 2 * 48, 96 + 96, 16),
    "head/head.norm.bias.grad_weight": Row(1, 48, 96, 16),
    **FFN_BACKWARD,
    "layer/ffn.down.grad_weight": Row(2, 2 * 6 * 8 * 16, 96 + 192, 256, True),
    "layer/ffn.down.grad_bias": _SQUARE_BIAS,
    "layer/ffn.up.grad_weight": Row(2, 2 * 6 * 8 * 16, 192 + 96, 256, True),
    "layer/ffn.up.grad_bias": Row(2, 6 * 16, 192, 32),
    "layer/ffn_norm.weight.grad_weight": _GAIN,
    "layer/ffn_norm.bias.grad_weight": _SHIFT,
    **ATTENTION_BACKWARD,
    **{f"layer/attention.{name}.grad_input": _SQUARE_INPUT for name in "qkvo"},
    **{f"layer/attention.{name}.grad_weight": _SQUARE_WEIGHT for name in "qkvo"},
    **{f"layer/attention.{name}.grad_bias": _SQUARE_BIAS for name in "qkvo"},
    # q, k and v give the norm's output three gradients: two sums; the layer's input gets one from around.
    "layer/attention_norm.out.gradient_add": _SUM,
    "layer/attention_norm.out.gradient_add.2": _SUM,
    "layer/attention_norm.grad_input": _NORM_INPUT,
    "layer/attention_norm.weight.grad_weight": _GAIN,
    "layer/attention_norm.bias.grad_weight": _SHIFT,
    "layer/x.gradient_add": _SUM,
    # Positions are shared by the two sequences: 24 sums of two, then spread over a table of 16 x 8 (256 bytes); words
    # over a table of 10 x 8 (160), which holds the head's gradient already and is read.
    "embedding/embedding.position.out.gradient_sum": Row(1, 48, 96, 48),
    "embedding/embedding.position.grad_weight": Row(1, 24, 48, 256),
    "embedding/embedding.word.grad_weight": Row(1, 48, 96 + 160, 160),
}


def update(times: int, values: int) -> Row:
    """AdamW of so many values, 14 operations each.

    Read: the gradient (2 bytes), the master weight and two moments (4 each); written: weight, master, moments.
    """
    return Row(times, 14 * values, (2 + 4 + 4 + 4) * values, (2 + 4 + 4 + 4) * values)


UPDATE: Table = {
    "embedding/embedding.word.update": update(1, 80),
    "embedding/embedding.position.update": update(1, 128),
    **{f"layer/{norm}_norm.{w}.update": update(2, 8) for norm in ("attention", "ffn") for w in ("weight", "bias")},
    **{f"layer/attention.{name}.update": update(2, 64) for name in "qkvo"},
    **{f"layer/attention.{name}.bias.update": update(2, 8) for name in "qkvo"},
    "layer/ffn.up.update": update(2, 128),
    "layer/ffn.up.bias.update": update(2, 16),
    "layer/ffn.down.update": update(2, 128),
    "layer/ffn.down.bias.update": update(2, 8),
    "head/head.norm.weight.update": update(1, 8),
    "head/head.norm.bias.update": update(1, 8),
}
