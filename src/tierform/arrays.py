"""Names for the array types of this package: flat memory of one number format each, of any shape.

An element read from such an array is a number of NumPy or, in a compiled loop, of the machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Words = NDArray[np.int32]
Shorts = NDArray[np.int16]
Bits = NDArray[np.uint64]
Unsigned = NDArray[np.uint32]
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
# Of any number format that one can calculate with.
Numbers = NDArray[np.number]
# Of whatever number format: codes and tensors as they are stored.
Array = NDArray[np.generic]
# The place of an array's first element, as a compiled loop that is called by address takes it.
Address = int

__all__ = [
    "Address",
    "Array",
    "Bits",
    "Bytes",
    "Flags",
    "Floats",
    "Ints",
    "Numbers",
    "Shorts",
    "Singles",
    "Unsigned",
    "Words",
]
