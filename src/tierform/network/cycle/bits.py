# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Single instructions of the processor in compiled code: the lowest set bit of a mask, and fetching ahead.

Round-robin among the set bits of a mask is "the first one from a pointer on", a few steps without a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tierform.jit import inlined

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing import Context, Signature

    Intrinsic = tuple[Signature, Callable[..., ir.Value]]


@intrinsic
def lowest_bit(typing_context: Context, word: types.Type) -> Intrinsic:
    """The place of the lowest set bit of a 64-bit word; undefined for 0.  One instruction of the processor."""

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value]
    ) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@inlined
def first_from(word: int, pointer: int) -> int:
    """The first set bit of `word` (not 0) at or after `pointer`, else the lowest."""
    later = word & (np.int64(-1) << np.int64(pointer))
    return lowest_bit(later if later != 0 else word)


@intrinsic
def fetch_ahead(typing_context: Context, words: types.Type, place: types.Type) -> Intrinsic:
    """Bring the cache line of ``words[place]`` near before it is used; any place is allowed, nothing is read."""

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value]
    ) -> ir.Value:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.PointerType(ir.IntType(8)))
        flag = ir.IntType(32)
        prefetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [address.type], ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        )
        builder.call(prefetch, [address, flag(1), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.none(words, types.int64), generate
