"""Timings of the store on this machine: kernels in memory, warm reads, cold loads, and what they are held against.

Each rate is given twice: by the wall clock, and by the processor time the work took, shared over the threads; the
second is what a machine would give that does nothing else.  Rates are of ordinary weight bytes (2 for a bf16).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.store.reader import Store

_CHUNK = 2**20  # weights


@dataclass(frozen=True, slots=True)
class Timing:
    """One line: `wall` and `cpu` are in `quantity`'s unit; `cpu` is 0 where it says nothing."""

    what: str
    quantity: str
    wall: float
    cpu: float
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _best(work: Callable[[], object], size: float, threads: int, repeats: int = 3) -> tuple[float, float]:
    """(bytes per second by the wall clock, by processor time over `threads`), the best of a few runs, after one."""
    work()
    wall = cpu = float("inf")
    for _ in range(repeats):
        begin, used = time.perf_counter(), time.process_time()
        work()
        wall, cpu = min(wall, time.perf_counter() - begin), min(cpu, time.process_time() - used)
    return size / wall, size * threads / max(cpu, 1e-9)


def gaussian_bf16(weights: int, seed: int = 0) -> NDArray[np.uint16]:
    """Codes of `weights` Gaussian weights of standard deviation 0.02, truncated to bf16."""
    values = np.random.default_rng(seed).standard_normal(weights, dtype=np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def kernels(megabytes: int = 256, threads: int = 2) -> list[Timing]:
    """Pack, unpack at 16 and at 4 planes, and checksum, beside NumPy's copy of the same weights."""
    from tierform.store.hashing import hash_pages
    from tierform.store.kernels import pack_blocks, unpack_blocks

    count = max(threads, megabytes * 2**20 // (2 * _CHUNK))
    words = gaussian_bf16(count * _CHUNK).view(np.uint64).reshape(count, -1)
    planes, back = np.empty_like(words), np.empty_like(words)
    four = np.empty((count, words.shape[1] // 4), np.uint64)
    blocks = _CHUNK // 512
    starts = np.arange(16, dtype=np.int64) * blocks * 8
    sums = np.empty((16, blocks // 64), np.uint64)

    def copy(chunk: int) -> None:
        np.copyto(back[chunk], words[chunk])

    def pack(chunk: int) -> None:
        pack_blocks(words[chunk], 16, 16, planes[chunk], 0, blocks * 8, 8, blocks)

    def unpack(source: NDArray[np.uint64], bits: int) -> Callable[[int], None]:
        wanted = np.full(1, bits, np.uint8)

        def one(chunk: int) -> None:
            unpack_blocks(source[chunk], starts, 8, 0, blocks, wanted, 0, 16, 16, 1, 8, 1, back[chunk])

        return one

    def checksum(chunk: int) -> None:
        hash_pages(planes[chunk], starts, 8, blocks, 64, 16, sums)

    rows = []
    with ThreadPoolExecutor(threads) as pool:
        for chunk in range(count):
            pack(chunk)
            four[chunk] = planes[chunk][: four.shape[1]]
        for what, work in [
            ("copy (NumPy)", copy), ("pack 16 planes", pack), ("unpack 16 planes", unpack(planes, 16)),
            ("unpack 4 planes", unpack(four, 4)), ("checksum 16 planes", checksum),
        ]:  # fmt: skip
            wall, cpu = _best(lambda work=work: list(pool.map(work, range(count))), words.nbytes, threads)  # type: ignore[misc]
            rows.append(Timing(what, "GB/s of bf16 weights", wall / 1e9, cpu / 1e9))
    return [
        Timing(row.what, row.quantity, row.wall, row.cpu, f"{row.wall / rows[0].wall:.0%} of the copy rate")
        for row in rows
    ]


def _bits_of(store: Store, bits: int) -> dict[str, int]:
    from tierform.store.to_torch import bits_for

    return {name: bits_for(entry.element, name, bits) for name, entry in store.entries.items()}


def _read_all(store: Store, bits: int, out: NDArray[np.uint64] | None) -> None:
    for name, each in _bits_of(store, bits).items():
        store.codes(name, each, out=out)


def reads(path: Path | str, bits: list[int], threads: int = 2) -> list[Timing]:
    """File to tensor with the page cache warm, into new memory and into memory that is used again."""
    rows = []
    with Store(path, threads=threads) as store:
        most = max((entry.blocks * entry.element.width * 8 for entry in store.entries.values()), default=0)
        scratch = np.zeros(most, np.uint64)
        for each in bits:
            for note, out in (("new memory", None), ("memory used again", scratch)):
                size = store.header.tensor_bytes
                wall, cpu = _best(lambda each=each, out=out: _read_all(store, each, out), size, threads)  # type: ignore[misc]
                rows.append(Timing(f"warm read, {each} bits", "GB/s of weights", wall / 1e9, cpu / 1e9, note))
    return rows


def _forget(path: Path) -> bool:
    """Drop a file from the page cache; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _disk_blocks() -> int:
    """Bytes this process has had read from disk so far; 0 where the system does not count."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512


def cold_loads(
    path: Path | str, model: Path | str | None, bits: list[int], threads: int = 2, repeats: int = 3
) -> list[Timing]:
    """Seconds to load from a cold page cache: the safetensors model (if given) and the store at each precision.

    The best of `repeats` rounds over all of them; the note gives the bytes that came from the disk and the share of
    safetensors' time.
    """
    from tierform.store.safetensors_file import find_files

    path = Path(path)
    if not _forget(path):
        return [Timing("cold load", "s", 0.0, 0.0, "this system cannot empty its page cache")]
    begin = time.perf_counter()
    with path.open("rb", buffering=0) as handle:
        buffer = bytearray(8 * 2**20)
        while handle.readinto(buffer):
            pass
    disk = path.stat().st_size / (time.perf_counter() - begin) / 1e9
    load: Callable[[Path], Any] | None = None
    files: list[Path] = []
    if model is not None:
        files, load = find_files(model), _safetensors_loader()  # importing it is not loading

    def store_at(each: int) -> None:
        with Store(path, threads=threads) as store:
            kept = [store.codes(name, one) for name, one in _bits_of(store, each).items()]
        del kept

    def safetensors() -> None:
        assert load is not None
        for file in files:
            for tensor in load(file).values():
                tensor.clone()  # its pages are mapped: this brings them in, as a model in use would

    cases: dict[str, Callable[[], None]] = {"cold load, safetensors": safetensors} if load is not None else {}
    for each in bits:
        cases[f"cold load, {each} bits"] = lambda each=each: store_at(each)  # type: ignore[misc]
    best: dict[str, tuple[float, int]] = {}
    for _ in range(repeats):
        for what, work in cases.items():
            for file in [path, *files]:
                _forget(file)
            before, begin = _disk_blocks(), time.perf_counter()
            work()
            seconds = time.perf_counter() - begin
            if what not in best or seconds < best[what][0]:
                best[what] = (seconds, _disk_blocks() - before)
    whole = best.get("cold load, safetensors", (0.0, 0))[0]
    rows = [Timing("the disk, read in order", "GB/s", disk, 0.0)]
    for what, (seconds, read) in best.items():
        share = f", {seconds / whole:.2f} of safetensors" if whole else ""
        rows.append(Timing(what, "s", seconds, 0.0, f"{read / 1e6:,.0f} MB from disk{share}"))
    return rows


def _safetensors_loader() -> Callable[[Path], Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        from tierform.errors import MissingDependency

        raise MissingDependency("safetensors", "comparing with safetensors", "store") from None
    loader: Callable[[Path], Any] = load_file
    return loader
