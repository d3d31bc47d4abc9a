"""Checking every byte of a store: header, directory, index rows, pages, attached files, and the zeros between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tierform.store.elements import PLANE_BYTES
from tierform.store.layout import HEADER_BYTES, RAW, TensorEntry, regions_of

if TYPE_CHECKING:
    from tierform.store.planes import PlaneReader
    from tierform.store.reader import Store


def verify_store(store: Store, planes: PlaneReader, progress: Callable[[int], None] | None) -> int:
    """Compare all checksums and all padding; the number of checksums compared, or a TierformError at the first wrong.

    The header and the directory were compared when the store was opened.
    """
    planes.file.guard()
    checks = 2
    for entry in store.entries.values():
        full = np.full(1, entry.element.planes, np.uint8)

        def check(chunk: int, entry: TensorEntry = entry, full: np.ndarray = full) -> None:
            stored, starts, step = planes.open_chunk(entry, chunk, entry.element.planes, 0, entry.chunk_span(chunk))
            planes.check_chunk(entry, chunk, stored, starts, step, 0, entry.chunk_span(chunk), full)

        planes.index(entry, entry.element.planes)
        store._map_jobs(check, range(entry.chunks))
        _check_gaps_inside(entry, planes, store)
        checks += entry.element.planes * (entry.pages + 1)
        if progress is not None:
            progress(entry.tensor_bytes)
    for item in store.attachments.values():
        planes.attachment(item)
        checks += 1
    end = HEADER_BYTES
    regions = regions_of(list(store.entries.values()), list(store.attachments.values()))
    for start, stop, _ in [*regions, (store.header.directory_offset, store.header.directory_offset, "")]:
        _check_zero(planes, store, end, start, "")
        end = stop
    return checks


def _check_zero(planes: PlaneReader, store: Store, start: int, stop: int, name: str) -> None:
    gap = np.frombuffer(store._map[start:stop], np.uint8)
    if gap.any():
        planes.bad("a byte between two regions is not zero", start + int(np.flatnonzero(gap)[0]), name)


def _check_gaps_inside(entry: TensorEntry, planes: PlaneReader, store: Store) -> None:
    """Compressed planes are padded; the padding is zero and nothing else lies in the tensor's region."""
    if entry.codec == "none" or not entry.chunks:
        return
    spans = []
    for row in planes.index(entry, entry.element.planes).segments:
        for chunk, segment in enumerate(row):
            offset, size = int(segment["offset"]), int(segment["size"])
            if segment["coding"] == RAW:
                size = entry.chunk_span(chunk) * PLANE_BYTES
            spans.append((offset, offset + size))
    end = entry.data_offset
    for start, stop in [*sorted(spans), (entry.data_offset + entry.data_bytes,) * 2]:
        if start < end:
            planes.bad("two planes overlap", start, entry.name)
        _check_zero(planes, store, end, start, entry.name)
        end = stop
