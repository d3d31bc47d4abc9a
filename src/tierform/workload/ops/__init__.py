"""The operators that transformers are made of: one file a kind, forward and backward beside each other.

Each function lays its operator out on a :class:`~tierform.workload.tape.Tape` and gives the result; the rule that its
gradient follows stands inside it as `backward`.
"""

from tierform.workload.ops.activation import activation
from tierform.workload.ops.attention import attention_core, score_tokens
from tierform.workload.ops.collective import collect, enter, exchange, leave
from tierform.workload.ops.dropout import dropout
from tierform.workload.ops.elementwise import add, add_parameter, concatenate, multiply, part
from tierform.workload.ops.embedding import embedding
from tierform.workload.ops.linear import adapter, linear
from tierform.workload.ops.loss import cross_entropy, squared_error
from tierform.workload.ops.matmul import matmul
from tierform.workload.ops.normalization import normalization
from tierform.workload.ops.rotary import rotary
from tierform.workload.ops.routing import combine, dispatch, route
from tierform.workload.ops.softmax import softmax

__all__ = [
    "activation",
    "adapter",
    "add",
    "add_parameter",
    "attention_core",
    "collect",
    "combine",
    "concatenate",
    "cross_entropy",
    "dispatch",
    "dropout",
    "embedding",
    "enter",
    "exchange",
    "leave",
    "linear",
    "matmul",
    "multiply",
    "normalization",
    "part",
    "rotary",
    "route",
    "score_tokens",
    "softmax",
    "squared_error",
]
