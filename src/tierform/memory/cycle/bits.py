# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""Bit masks of banks in compiled loops."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def lowest_bit(typingctx, mask):
    """Number of the lowest set bit of a mask that is not zero."""

    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen
