"""How many scalar operations one output value of each non-matmul operator takes.

The counts follow the textbook formula of each operator, written beside it; one addition, multiplication, comparison,
division, exponential, square root or hyperbolic tangent counts as one operation.  They are conventions for counting,
not costs: what an operation costs is the component's affair.  Matmuls count two operations per multiply-accumulate.
"""

from __future__ import annotations

# Normalization: LayerNorm mean, subtract, square, sum, divide, reciprocal root, multiply, gain, shift; RMSNorm square,
# sum, divide, multiply, gain.
NORMALIZATION = {"layernorm": 8.0, "rmsnorm": 5.0}
# Gradient of the input: two reductions (multiply and add each), two subtractions, scalings; gain and shift: 3.
NORMALIZATION_BACKWARD = {"layernorm": 11.0, "rmsnorm": 8.0}
NORMALIZATION_PARAMETERS = {"layernorm": 3.0, "rmsnorm": 2.0}

# Softmax over scores: scale, mask, maximum, subtract, exponential, sum, divide; gradient: p * (g - sum(p * g)), scale.
SOFTMAX = 7.0
SOFTMAX_BACKWARD = 5.0

# relu max; gelu x/2 (1 + erf(x/sqrt 2)); gelu_new the tanh form; silu x / (1 + exp(-x)); quick_gelu x sigmoid(1.702 x).
ACTIVATION = {
    "relu": 1.0,
    "gelu": 5.0,
    "gelu_new": 9.0,
    "gelu_tanh": 9.0,
    "silu": 4.0,
    "quick_gelu": 5.0,
    "tanh": 1.0,
    "sigmoid": 4.0,
}
ACTIVATION_BACKWARD = {
    "relu": 1.0,
    "gelu": 9.0,
    "gelu_new": 13.0,
    "gelu_tanh": 13.0,
    "silu": 6.0,
    "quick_gelu": 7.0,
    "tanh": 3.0,
    "sigmoid": 3.0,
}

ROTARY = 3.0  # x cos + rotate(x) sin: two multiplications, one addition
DROPOUT = 2.0  # mask and rescale
ADD = 1.0
MULTIPLY = 1.0
DEQUANTIZE = 2.0  # look up the level, multiply by the block's scale
QUANTIZE = 4.0  # largest magnitude of the token (compare), divide by its scale, round, clip
GATHER = 0.0  # a copy
MERGE = 3.0  # partial attention: subtract, weight by the share of the sums of exponentials, subtract
LOSS = 5.0  # log-softmax over the vocabulary: maximum, subtract, exponential, sum, subtract
LOSS_BACKWARD = 3.0  # exponential, subtract the one-hot target, scale
REGRESSION_LOSS = 3.0  # (y - t)^2 summed
ROUTING = 7.0  # softmax or sigmoid over expert logits, then a running top-k comparison

# Per parameter and step.  AdamW (Loshchilov and Hutter, 2019): m 3, v 4, bias corrections 2, root, epsilon, divide,
# step size, subtract, weight decay 1.  SGD: multiply, subtract; with momentum one multiply-add more.  8-bit AdamW
# (Dettmers et al., 2022): for each moment also look up, multiply by the block's scale; block maximum, divide, find the
# level.  Adafactor (Shazeer and Stern, 2018): square, epsilon, sums by row and column 2, product of factors, divide,
# root, divide by it; root mean square 2, clip, step size, subtract.  Muon (Jordan, 2024) beside its products: momentum
# 2, Nesterov 2, norm 2, divide; scale, weight decay, step size, subtract.
OPTIMIZER = {"adamw": 14.0, "adamw-8bit": 24.0, "adafactor": 13.0, "muon": 11.0, "sgd": 2.0, "sgd-momentum": 4.0}
OPTIMIZER_STATES = {"adamw": 2, "adamw-8bit": 2, "adafactor": 1, "muon": 1, "sgd": 0, "sgd-momentum": 1}
