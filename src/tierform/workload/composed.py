"""How much more eager code moves for an operator that it composes of several operations.

Every operation is a kernel that reads its inputs and writes its result.  A count is the tensors that all of them move,
over those that one kernel would; small ones (masks that are shared by heads, biases) are left out.  Counted in the code
of Hugging Face transformers 4 and 5 (GPT-2, BERT, OPT: eager attention; NewGELUActivation) and PyTorch's derivatives:

- softmax over scores: divide by the root of the head's size, mask, softmax: 3 times read and written, where one kernel
  reads and writes once.  Backward: softmax reads gradient and result and writes; mask and division read and write: 7
  tensors, where one kernel moves 3;
- gelu_new: power, multiply, add x, multiply, tanh, add 1, half of x, multiply: 6 of one tensor and 2 of two, 18
  tensors for 2.  Backward: 28 for 3 (the product 6, half 2, tanh 3, two factors 4, the cube's power, factor and
  product 7, sums of gradients 6).

What the library computes in one kernel (gelu, silu, relu, layer normalization) is not composed.
"""

from __future__ import annotations

ONE = (1.0, 1.0)
# (forward, backward)
COMPOSED = {"softmax": (3.0, 7.0 / 3.0), "gelu_new": (9.0, 28.0 / 3.0)}


def composed_of(function: str) -> tuple[float, float]:
    """How much more eager code moves for a function, forward and backward; 1 where it is one kernel."""
    return COMPOSED.get(function, ONE)
