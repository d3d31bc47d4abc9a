"""Timings of the store on this machine: kernels in memory, warm reads, cold loads, and what they are held against.

Each figure is the median of a few repeats, with the lowest and the highest beside it, and is given twice: by the wall
clock, and by the processor time the work took, shared over the threads; the second is what a machine would give that
does nothing else.  Rates are of ordinary weight bytes (2 for a bf16).  Beside them stand the machine's own limits: a
copy, the first touch of new memory, and the disk read at the same places without making weights.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.store.layout import TensorEntry
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

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def _repeated(
    what: str, work: Callable[[], object], size: float, threads: int, repeats: int = 5, note: str = "", new_B: int = 0
) -> Timing:
    """Bytes per second over a few runs, after one; `new_B` of memory are touched and given back before each."""
    work()
    walls, cpus = [], []
    for _ in range(repeats):
        if new_B:
            _back_memory(new_B)
        begin, used = time.perf_counter(), time.process_time()
        work()
        walls.append(size / (time.perf_counter() - begin) / 1e9)
        cpus.append(size * threads / max(time.process_time() - used, 1e-9) / 1e9)
    spread = f"{min(walls):.2f} to {max(walls):.2f}"
    return Timing(
        what,
        "GB/s of weights",
        float(np.median(walls)),
        float(np.median(cpus)),
        ", ".join(filter(None, (note, spread))),
    )


def _back_memory(size: int) -> None:
    """Touch memory and give it back: a virtual machine's host may take long to provide what was not used for a while,
    and that is not to fall on whoever is measured next.
    """
    from tierform.store.memory import new_words

    new_words(size // 8).fill(0)


def gaussian_bf16(weights: int, seed: int = 0) -> NDArray[np.uint16]:
    """Codes of `weights` Gaussian weights of standard deviation 0.02, truncated to bf16."""
    values = np.random.default_rng(seed).standard_normal(weights, dtype=np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def kernels(megabytes: int = 256, threads: int = 2) -> list[Timing]:
    """Pack, unpack at 16 and at 4 planes, and checksum, beside NumPy's copy of the same weights."""
    from tierform.store.hashing import hash_pages
    from tierform.store.kernels import pack_blocks, unpack_blocks
    from tierform.store.memory import new_words

    count = max(threads, megabytes * 2**20 // (2 * _CHUNK))
    words = gaussian_bf16(count * _CHUNK).view(np.uint64).reshape(count, -1)
    planes, back = np.empty_like(words), new_words(words.size).reshape(words.shape)
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
            unpack_blocks(
                source[chunk], starts, 8, 0, blocks, wanted, 0, 16, 16, 1, 8, 1, back[chunk], past_caches=True
            )

        return one

    def checksum(chunk: int) -> None:
        hash_pages(planes[chunk], starts, 8, blocks, 64, 16, sums)

    rows = []
    with ThreadPoolExecutor(threads) as pool:
        for chunk in range(count):
            pack(chunk)
            four[chunk] = planes[chunk][: four.shape[1]]
        for what, work in [
            ("copy (NumPy)", copy),
            ("pack 16 planes", pack),
            ("unpack 16 planes", unpack(planes, 16)),
            ("unpack 4 planes", unpack(four, 4)),
            ("checksum 16 planes", checksum),
        ]:
            rows.append(_repeated(what, lambda work=work: list(pool.map(work, range(count))), words.nbytes, threads))  # type: ignore[misc]
    return [replace(row, note=f"{row.wall / rows[0].wall:.0%} of the copy rate, {row.note}") for row in rows]


def first_touch(megabytes: int = 256, threads: int = 2) -> list[Timing]:
    """Writing new memory for the first time, on ordinary and on huge pages: no reader of new tensors can be faster."""
    from tierform.store.memory import new_words

    count = max(threads, megabytes // 2)
    piece = 2**18  # words: 2 MiB

    def ordinary(size: int) -> NDArray[np.uint64]:
        mapped = mmap.mmap(-1, size * 8)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            mapped.madvise(mmap.MADV_NOHUGEPAGE)
        return np.frombuffer(mapped, np.uint64)

    rows = []
    with ThreadPoolExecutor(threads) as pool:
        for what, make in (("ordinary pages", ordinary), ("huge pages", new_words)):

            def fill(make: Callable[[int], NDArray[np.uint64]] = make) -> None:
                memory = make(count * piece).reshape(count, piece)
                list(pool.map(lambda row: memory[row].fill(1), range(count)))

            size = count * piece * 8
            rows.append(_repeated("first touch of memory", fill, size, threads, note=what, new_B=size))
        time.sleep(5)  # free memory goes back to the host of a virtual machine after some seconds, if it does
        begin = time.perf_counter()
        fill()
        rate = size / (time.perf_counter() - begin) / 1e9
        rows.append(Timing("first touch of memory", "GB/s of weights", rate, 0.0, "huge pages, 5 s after it was free"))
    return rows


def _bits_of(store: Store, bits: int) -> dict[str, int]:
    from tierform.store.to_torch import bits_for

    return {name: bits_for(entry.element, name, bits) for name, entry in store.entries.items()}


def _read_all(store: Store, bits: int, out: NDArray[np.uint64] | None) -> None:
    for name, each in _bits_of(store, bits).items():
        store.codes(name, each, out=out)


def _stream_all(path: Path | str, bits: int, threads: int, direct: bool = False) -> None:
    with Store(path, threads=threads, direct=direct) as store:
        kept = dict(store.stream(_bits_of(store, bits)))
    del kept


def reads(path: Path | str, bits: list[int], threads: int = 2) -> list[Timing]:
    """File to tensor with the page cache warm: opened and loaded whole, tensor by tensor, into memory used again."""
    rows = []
    with Store(path, threads=threads) as store:
        size = store.header.tensor_bytes
        most = max((entry.blocks * entry.element.width * 8 for entry in store.entries.values()), default=0)
        scratch = np.zeros(most, np.uint64)
        for each in bits:
            what = f"warm read, {each} bits"
            for note, work, new in (
                ("opened and loaded, new memory", lambda each=each: _stream_all(path, each, threads), size),
                ("tensor by tensor, new memory", lambda each=each: _read_all(store, each, None), 8 * most),
                ("memory used again", lambda each=each: _read_all(store, each, scratch), 0),
            ):
                rows.append(_repeated(what, work, size, threads, note=note, new_B=new))
    return rows


def _forget(path: Path) -> bool:
    """Drop a file from the page cache; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _cached(path: Path) -> float:
    """The share of a file that is in the page cache; NaN where the system does not tell."""
    try:
        mincore = ctypes.CDLL(None).mincore
    except (AttributeError, OSError, TypeError):
        return float("nan")
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        held = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        seen = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        failed = mincore(ctypes.c_void_p(ctypes.addressof(held)), ctypes.c_size_t(len(mapped)), seen)
        del held
    return float("nan") if failed else float(np.mean(np.frombuffer(bytes(seen), np.uint8) & 1))


def _disk_bytes() -> int:
    """Bytes this process has had read from disk so far; 0 where the system does not count."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512


def _only_read(path: Path, bits: int, threads: int, direct: bool) -> None:
    """The same bytes in the same requests as a load at `bits`, and nothing made of them."""
    with Store(path, threads=threads, direct=direct) as store, ThreadPoolExecutor(2 * threads) as pool:
        wanted = _bits_of(store, bits)
        jobs = [(entry, chunk) for entry in store.entries.values() for chunk in range(entry.chunks)]

        def read(job: tuple[TensorEntry, int]) -> None:
            entry, chunk = job
            store._planes.open_chunk(entry, chunk, wanted[entry.name], 0, entry.chunk_span(chunk))

        list(pool.map(read, jobs))


def cold_loads(
    path: Path | str, model: Path | str | None, bits: list[int], threads: int = 2, repeats: int = 5
) -> list[Timing]:
    """Seconds to load from a cold page cache: the safetensors model (if given) and the store at each precision.

    Each precision four ways: through the page cache and past it, and the same bytes only read.  The median of `repeats`
    rounds over everything, so that what else the disk does falls on all; the note gives the range, the bytes that came
    from the disk, and the share of safetensors' time.
    """
    from tierform.store.safetensors_file import find_files

    path = Path(path)
    if not _forget(path):
        return [Timing("cold load", "s", 0.0, 0.0, "this system cannot empty its page cache")]
    load: Callable[[Path], Any] | None = None
    files: list[Path] = []
    if model is not None:
        files, load = find_files(model), _safetensors_loader()  # importing it is not loading

    def safetensors() -> None:
        assert load is not None
        for file in files:
            for tensor in load(file).values():
                tensor.clone()  # its pages are mapped: this brings them in, as a model in use would

    cases: dict[str, Callable[[], None]] = {"cold load, safetensors": safetensors} if load is not None else {}
    for each in bits:
        for way, direct in (("", False), (", past the cache", True)):
            if direct and not _reads_direct(path):
                continue
            cases[f"cold load, {each} bits{way}"] = lambda each=each, direct=direct: _stream_all(  # type: ignore[misc]
                path, each, threads, direct
            )
            cases[f"the disk alone, {each} bits{way}"] = lambda each=each, direct=direct: _only_read(  # type: ignore[misc]
                path, each, threads, direct
            )
    found: dict[str, list[tuple[float, float, int]]] = {what: [] for what in cases}
    with Store(path, threads=1) as store:
        size = store.header.tensor_bytes
    warm = 0.0
    for _ in range(repeats):
        for what, work in cases.items():
            for file in [path, *files]:
                _forget(file)
                warm = max(warm, _cached(file))
            _back_memory(2 * size)
            before, begin, used = _disk_bytes(), time.perf_counter(), time.process_time()
            work()
            seconds, cpu = time.perf_counter() - begin, time.process_time() - used
            found[what].append((seconds, cpu, _disk_bytes() - before))
    medians = {what: float(np.median([one[0] for one in runs])) for what, runs in found.items()}
    whole = medians.get("cold load, safetensors", 0.0)
    rows = []
    for what, runs in found.items():
        walls = [one[0] for one in runs]
        share = f", {medians[what] / whole:.2f} of safetensors" if whole else ""
        note = f"{min(walls):.3f} to {max(walls):.3f}, {runs[-1][2] / 1e6:,.0f} MB from disk{share}"
        rows.append(Timing(what, "s", medians[what], float(np.median([one[1] for one in runs])) / threads, note))
    if warm > 0.01:
        rows.append(Timing("of a file still cached", "share", warm, 0.0, "the page cache was not quite cold"))
    return rows


def _reads_direct(path: Path) -> bool:
    from tierform.errors import TierformError

    try:
        _only_read(path, 1, 1, direct=True)
    except TierformError:
        return False
    return True


def _safetensors_loader() -> Callable[[Path], object]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        from tierform.errors import MissingDependency

        raise MissingDependency("safetensors", "comparing with safetensors", "store") from None
    loader: Callable[[Path], object] = load_file
    return loader
