"""Which element types a store holds, and what their bits mean.

Each weight is a code of `planes` bits, most significant first.  Three kinds: floating point (sign, exponent, mantissa:
codes of equal sign are ordered as their values are, so the first k bits bound the value), two's complement integers
(the first k bits bound the value too), and exact types (positions, masks, 64-bit numbers), which are kept as planes as
well but are only ever read whole.  Limits: packed sub-byte types of safetensors other than int4 are refused.
Sources: IEEE 754-2019; the OCP 8-bit floating point specification 1.0 (E4M3 has no infinity and one NaN per sign).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Numbers
from tierform.errors import fail

BLOCK_WEIGHTS = 512  # one plane of a block is 64 bytes: one DDR5 burst, one cache line
PLANE_BYTES = BLOCK_WEIGHTS // 8
PAGE_BLOCKS = 64  # blocks whose rows of one plane share a checksum: 4 KiB
Kind = Literal["float", "float-finite", "int", "exact"]


@dataclass(frozen=True, slots=True)
class Element:
    """One element type.

    `planes` is the number of stored bits, `width` the bits of the word that holds one weight in memory (int4 sits in a
    byte), `exponent_bits` is 0 unless the kind is a float; ``float-finite`` has no infinity (E4M3).
    """

    name: str
    code: int
    safetensors: str
    planes: int
    width: int
    kind: Kind
    exponent_bits: int
    numpy: str
    torch: str

    @property
    def word_bytes(self) -> int:
        """Bytes of one weight in memory."""
        return self.width // 8

    @property
    def partial(self) -> bool:
        """Whether fewer than all planes may be read."""
        return self.kind != "exact"

    def check_bits(self, bits: int, where: str) -> int:
        """`bits` when this type can be read at that precision, otherwise a TierformError that says what can."""
        if isinstance(bits, bool) or not 1 <= bits <= self.planes:
            fail(f"{self.name} is read at 1 to {self.planes} bits", key=where, value=bits)
        if bits != self.planes and not self.partial:
            fail(f"{self.name} can only be read whole, at {self.planes} bits", key=where, value=bits)
        return int(bits)


ELEMENTS: tuple[Element, ...] = (
    Element("bf16", 1, "BF16", 16, 16, kind="float", exponent_bits=8, numpy="uint16", torch="bfloat16"),
    Element("fp16", 2, "F16", 16, 16, kind="float", exponent_bits=5, numpy="float16", torch="float16"),
    Element("fp32", 3, "F32", 32, 32, kind="float", exponent_bits=8, numpy="float32", torch="float32"),
    Element("fp8-e4m3", 4, "F8_E4M3", 8, 8, kind="float-finite", exponent_bits=4, numpy="uint8", torch="float8_e4m3fn"),
    Element("fp8-e5m2", 5, "F8_E5M2", 8, 8, kind="float", exponent_bits=5, numpy="uint8", torch="float8_e5m2"),
    Element("int8", 6, "I8", 8, 8, kind="int", exponent_bits=0, numpy="int8", torch="int8"),
    Element("int4", 7, "I8", 4, 8, kind="int", exponent_bits=0, numpy="int8", torch="int8"),
    Element("uint8", 16, "U8", 8, 8, kind="exact", exponent_bits=0, numpy="uint8", torch="uint8"),
    Element("bool", 17, "BOOL", 8, 8, kind="exact", exponent_bits=0, numpy="bool", torch="bool"),
    Element("int16", 18, "I16", 16, 16, kind="exact", exponent_bits=0, numpy="int16", torch="int16"),
    Element("uint16", 19, "U16", 16, 16, kind="exact", exponent_bits=0, numpy="uint16", torch="uint16"),
    Element("int32", 20, "I32", 32, 32, kind="exact", exponent_bits=0, numpy="int32", torch="int32"),
    Element("uint32", 21, "U32", 32, 32, kind="exact", exponent_bits=0, numpy="uint32", torch="uint32"),
    Element("int64", 22, "I64", 64, 64, kind="exact", exponent_bits=0, numpy="int64", torch="int64"),
    Element("uint64", 23, "U64", 64, 64, kind="exact", exponent_bits=0, numpy="uint64", torch="uint64"),
    Element("fp64", 24, "F64", 64, 64, kind="exact", exponent_bits=0, numpy="float64", torch="float64"),
)
BY_CODE = {element.code: element for element in ELEMENTS}
BY_NAME = {element.name: element for element in ELEMENTS}
BY_SAFETENSORS = {element.safetensors: element for element in ELEMENTS if element.name != "int4"}


def element_named(name: str) -> Element:
    """The element type `name`; TierformError with the nearest one when there is none."""
    if name not in BY_NAME:
        fail("unknown element type", value=name, choices=BY_NAME, fix=f"Known: {', '.join(BY_NAME)}.")
    return BY_NAME[name]


def to_values(element: Element, codes: Numbers) -> Numbers:
    """Codes as NumPy values; bf16 and fp8 as float32 (exact)."""
    if element.name == "bf16":
        return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if element.name.startswith("fp8"):
        table: NDArray[np.float32] = fp8_values(element)[codes]
        return table
    return codes.view(element.numpy)


def fp8_values(element: Element) -> NDArray[np.float32]:
    """The 256 values of an 8-bit float type, as the OCP specification defines them."""
    mantissa_bits = 7 - element.exponent_bits
    bias = (1 << (element.exponent_bits - 1)) - 1
    code = np.arange(256)
    exponent = (code >> mantissa_bits) & ((1 << element.exponent_bits) - 1)
    mantissa = code & ((1 << mantissa_bits) - 1)
    fraction = mantissa / (1 << mantissa_bits)
    value = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    top = (1 << element.exponent_bits) - 1
    if element.kind == "float":
        value = np.where(exponent == top, np.where(mantissa == 0, np.inf, np.nan), value)
    else:
        value = np.where(code & 0x7F == 0x7F, np.nan, value)
    return np.where(code >= 128, -value, value).astype(np.float32)
