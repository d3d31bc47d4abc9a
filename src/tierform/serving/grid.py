"""Where passes are simulated for the tables of an engine: numbers of tokens, sequences, contexts, chunks and pasts."""

from __future__ import annotations

from dataclasses import dataclass

PASTS = (64, 256, 512, 1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True)
class Grid:
    """Where passes are simulated."""

    tokens: tuple[int, ...]
    sequences: tuple[int, ...]
    contexts: tuple[int, ...]
    chunks: tuple[int, ...]
    pasts: tuple[int, ...]


def grid_for(most_tokens: int, most_sequences: int, longest: int) -> Grid:
    """Points for an engine; where tiles of 64 queries end, attention takes a step, so both sides are points."""
    doubled = [1 << power for power in range(40)]
    sequences = [
        part for one in doubled for part in ((one,) if one < 4 else (one, one * 5 // 4, one * 3 // 2, one * 7 // 4))
    ]
    contexts = [
        part
        for one in doubled
        if one >= 16
        for part in ((one, one * 5 // 4, one * 3 // 2, one * 7 // 4) if one < 1024 else (one, one * 3 // 2))
    ]
    edges = [one for one in range(64, most_tokens, 64) if one <= 512 or one % 128 == 0]
    tokens = [one for edge in range(64, most_tokens, 64 * max(1, most_tokens // 4096)) for one in (edge, edge + 1)]
    small = [one for one in (1, 2, 4, 8, 16, 32) if one < most_tokens]
    return Grid(
        tokens=tuple(sorted({*small, *tokens, most_tokens})),
        sequences=tuple(sorted({*(one for one in sequences if one < most_sequences), most_sequences})),
        contexts=tuple(sorted({1, *(one for one in contexts if one < longest), longest})),
        chunks=tuple(sorted({2, 16, *edges, *(one + 1 for one in edges), most_tokens})),
        pasts=tuple(sorted({0, *(one for one in PASTS if one < longest), longest})),
    )


__all__ = ["Grid", "grid_for"]
