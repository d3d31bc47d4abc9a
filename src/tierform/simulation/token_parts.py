"""In how many parts the tokens of a micro-batch come to a product, and where its component takes them together instead.

On a pipelined chip tokens go from operator to operator in parts.  What takes them one by one (crossbars, vector units)
does not care.  An array that computes products pays for each part by itself; or it takes all of them together, when
the last one is there, and what follows waits.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tierform.simulation.facts import Facts
from tierform.workload.operator import Origin

ALL_AT_ONCE = (1, 1)


@dataclass(frozen=True, slots=True)
class TokenParts:
    """`tokens` of a micro-batch in `parts`; the components `whole` take them together."""

    parts: int
    tokens: int
    whole: AbstractSet[str]

    def of(self, facts: Facts) -> tuple[int, int]:
        """(parts, sequences with operands of their own) of one product."""
        if self.parts < 2 or not facts.matmul:
            return ALL_AT_ONCE
        operator = facts.operator
        if facts.has_weight or operator.origin is Origin.WEIGHT_GRADIENT or not self.tokens:
            return self.parts, 1
        sequences = max(1, self.tokens // max(operator.m, 1))
        shared = operator.batch % sequences or any(one.elements % sequences for one in operator.inputs)
        return (max(1, self.parts // sequences), 1) if shared else (self.parts, sequences)
