"""Measuring a device with torch: products of many shapes, streaming bandwidth, the cost of a launch.

Shapes are drawn from a fixed grid by a seed, smaller ones more often than those that take long.  A CUDA (or ROCm)
device is timed by its events, the median of repeats.  The CPU is timed as the median of repeats that together last
some milliseconds, its products on weights in turn that no cache holds, as a model's are: with one thread by its own
processor time, with several by the wall clock, so that the machine should then have nothing else to do.  What else
loads the machine fills its caches and slows its clock, as it will the run that is to be foretold; it is noted.

Half of the products have one to eight rows, as decoding and the verification of drafts have.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from tierform.chip.gpu.few_rows import MOST_ROWS
from tierform.chip.gpu.samples import Sample
from tierform.errors import MissingDependency, fail, nearest

WIDTH = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
_FORMATS = ("fp32", "bf16", "fp16")
_M = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
_NK = (64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288)
_COLD_B, _MOST_WEIGHTS = 384 * 2**20, 4096  # a processor's weights come from memory, as those of a training step do
QUIET, WAITS, NAP_S = 1.15, 12, 0.02  # of a moment's pace; how often, and how long each time, a quiet one is awaited
_QUICK_S, _FULL_S = 0.02, 0.2  # the longest single product, in time at the measured peak


@dataclass(frozen=True, slots=True)
class Device:
    """What was measured of the device as a whole; `threads` are multiprocessors on a GPU and threads on a CPU."""

    name: str
    kind: str
    format: str
    peak_per_s: float
    bandwidth_B_per_s: float
    launch_s: float
    threads: int
    clock_Hz: float
    cache_B: float
    memory_B: float
    issue_s: float = 0.0
    view_s: float = 0.0
    light_s: tuple[tuple[str, float], ...] = ()
    load: float = 0.0  # processes that wanted to run in the last minute, before anything was measured
    cores: int = 0
    pace: Pace | None = field(default=None, compare=False, repr=False)  # of a processor, for what is measured later


def torch_or_fail() -> Any:
    """The torch library; MissingDependency when it is not installed."""
    try:
        import torch
    except ImportError:
        raise MissingDependency("torch", "calibration", "train") from None
    return torch


def measure_device(kind: str = "auto", threads: int | None = None, form: str = "") -> Device:
    """Peak rate of large products, streaming bandwidth and launch cost of the GPU, or of the CPU without one.

    `form` is the format of products: fp32, bf16 or fp16; "" is bf16 on a GPU and fp32 on a CPU.
    """
    torch = torch_or_fail()
    if form and form not in _FORMATS:
        near = nearest(form, _FORMATS)
        fail("products are measured in fp32, bf16 or fp16", key="--format", value=form, choices=[near or "fp32"])
    load, cores = load_of_machine(), os.cpu_count() or 1
    if threads is not None:
        torch.set_num_threads(threads)
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        fail("torch sees no GPU on this machine", key="--device", value=kind, fix="Use --device cpu.")
    form = form or ("bf16" if kind == "cuda" else "fp32")
    size = 8192 if kind == "cuda" else 1536
    pace = Pace.of_processor() if kind == "cpu" else None
    clock = _timer(torch, pace)
    a, b = _matrix(torch, kind, form, size, size), _matrix(torch, kind, form, size, size)
    peak = max(2.0 * size**3 / clock(lambda: a @ b) for _ in range(3))
    stream = torch.ones(256 * 2**20 if kind == "cuda" else 32 * 2**20, dtype=torch.float32, device=kind)
    target = torch.empty_like(stream)
    bandwidth = max(2.0 * stream.numel() * 4 / clock(lambda: target.copy_(stream)) for _ in range(3))
    tiny = torch.ones(64, device=kind)
    launch = min(clock(lambda: tiny.add_(1.0)) for _ in range(3))
    if kind == "cuda":
        found = torch.cuda.get_device_properties(0)
        cache = float(getattr(found, "L2_cache_size", 0) or 32 * 2**20)
        rate = float(getattr(found, "clock_rate", 0) or 1.5e6) * 1e3
        return Device(
            name=found.name,
            kind=kind,
            format=form,
            peak_per_s=peak,
            bandwidth_B_per_s=bandwidth,
            launch_s=launch,
            threads=found.multi_processor_count,
            clock_Hz=rate,
            cache_B=cache,
            memory_B=float(found.total_memory),
            load=load,
            cores=cores,
        )
    issue_s, view_s = _host_s(torch, clock)
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 8e9
    return Device(
        name=_cpu_name(),
        kind=kind,
        format=form,
        peak_per_s=peak,
        bandwidth_B_per_s=bandwidth,
        launch_s=launch,
        threads=torch.get_num_threads(),
        clock_Hz=_cpu_clock_Hz(),
        cache_B=_cpu_cache_B(),
        memory_B=memory,
        issue_s=issue_s,
        view_s=view_s,
        light_s=_light_s(torch, clock),
        load=load,
        cores=cores,
        pace=pace,
    )


def load_of_machine() -> float:
    """Processes that wanted to run in the last minute; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def _host_s(torch: Any, clock: Callable[[Callable[[], Any]], float]) -> tuple[float, float]:
    """Time of the host for a kernel, and for a view, forward or backward: dispatch, autograd, allocation.

    A chain of additions of next to nothing has a kernel each way for each; one of views nothing that computes.
    """
    x, length = torch.randn(1, 4, 8, requires_grad=True), 20

    def additions() -> None:
        y = x
        for _ in range(length):
            y = y + x
        torch.autograd.backward(y, torch.ones_like(y))

    def views() -> None:
        y = x
        for _ in range(length):
            y = y.view(4, 8).view(1, 4, 8)
        torch.autograd.backward(y, torch.ones_like(y))

    # Backward, the gradients of x that meet are added; a view's is a view.
    return clock(additions) / (2 * length), clock(views) / (4 * length)


def _light_s(torch: Any, clock: Callable[[Callable[[], Any]], float]) -> tuple[tuple[str, float], ...]:
    """Seconds that an element takes in each kind of light kernel: tensors that caches hold, less a call on a small one.

    Forward and backward alike, as both pass once over about as many values.
    """
    functional = torch.nn.functional
    kinds: dict[str, Callable[[Any], Any]] = {
        "softmax": lambda x: torch.softmax(x, -1),
        "normalization": lambda x: functional.layer_norm(x, x.shape[-1:]),
        "activation": functional.silu,
        "elementwise": lambda x: x + x,
    }
    found: dict[str, float] = {}
    few, many = (torch.randn(rows, 512, requires_grad=True) for rows in (1, 513))

    def element_s(work: Callable[[Any], Any], passes: int) -> float:
        seconds: list[float] = [clock(lambda x=x: work(x)) for x in (few, many)]  # type: ignore[misc]
        return max(1e-12, (seconds[1] - seconds[0]) / (passes * float(many.numel() - few.numel())))

    for name, function in kinds.items():
        found[name] = element_s(lambda x, f=function: torch.autograd.grad(f(x), x, torch.ones_like(x)), 2)  # type: ignore[misc]
    found["rotary"] = found["elementwise"]
    found["dropout"] = element_s(lambda x: functional.dropout(x.detach(), 0.1, True), 1)
    found["random"] = element_s(lambda x: torch.empty_like(x).bernoulli_(0.9), 1)
    return tuple(found.items())


def measure_products(device: Device, count: int, *, quick: bool = False, seed: int = 0) -> Iterator[Sample]:
    """`count` products of different shapes, one after the other (so that a caller can show progress and stop)."""
    torch = torch_or_fail()
    pace = device.pace
    if pace is None and device.kind != "cuda":
        pace = Pace.of_processor()
    clock = _timer(torch, pace)
    store = _store(torch, device) if device.kind != "cuda" else None
    for m, n, k in chosen_shapes(device, count, quick=quick, seed=seed):
        a = _matrix(torch, device.kind, device.format, m, k)
        alone = store is None or store.numel() < n * k
        weights = [_matrix(torch, device.kind, device.format, n, k).t()] if alone else _parts(store, n, k)
        out, turn = a @ weights[0], cycle(weights)
        seconds = clock(lambda a=a, turn=turn, out=out: torch.matmul(a, next(turn), out=out))  # type: ignore[misc]
        yield Sample(device.name, "product", device.format, (m, n, k), seconds)


def _store(torch: Any, device: Device) -> Any:
    """Numbers in the device's format, more than its caches hold."""
    small = _matrix(torch, device.kind, device.format, 2**11, 2**11).reshape(-1)
    times = min(_COLD_B, device.memory_B / 16) / (WIDTH[device.format] * small.numel())
    return small.repeat(max(2, int(times)))


def _parts(store: Any, n: int, k: int) -> list[Any]:
    """Weights of one size that lie one after the other in a store that no cache holds."""
    count = max(1, min(_MOST_WEIGHTS, store.numel() // (n * k)))
    return [store[place * n * k : (place + 1) * n * k].view(n, k).t() for place in range(count)]


def chosen_shapes(device: Device, count: int, *, quick: bool = False, seed: int = 0) -> list[tuple[int, int, int]]:
    """Shapes that the device can do in reasonable time and memory, drawn without repetition; half of them of few rows.

    The same `count` and `seed` give the same shapes.
    """
    longest_s = _QUICK_S if quick else _FULL_S
    draw = np.random.default_rng(seed)
    picked = []
    for rows, wanted in ((tuple(range(1, MOST_ROWS + 1)), count // 2), (_M, count - count // 2)):
        shapes = [
            (m, n, k)
            for m in rows
            for n in _NK
            for k in _NK
            if 2.0 * m * n * k < longest_s * device.peak_per_s
            and 4.0 * (m * k + n * k + m * n) < min(device.memory_B / 8, longest_s * device.bandwidth_B_per_s)
        ]
        picked += [shapes[place] for place in draw.permutation(len(shapes))[:wanted]]
    return [picked[place] for place in draw.permutation(len(picked))]


def _matrix(torch: Any, kind: str, form: str, rows: int, columns: int) -> Any:
    wide = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[form]
    return torch.randn(rows, columns, device=kind).to(wide)


class Pace:
    """How fast the processor is at the moment, against the fastest that was seen: a small fixed piece of work, timed.

    What runs beside on the same core, perhaps another guest's, comes and goes in tenths of a second and slows
    everything by up to two thirds; processor time does not leave it out.
    """

    def __init__(self, clock: Callable[[], float], looks: int = 60) -> None:
        torch = torch_or_fail()
        self.clock = clock
        a, x = torch.randn(128, 128), torch.randn(8, requires_grad=True)
        out = torch.empty_like(a)

        def work() -> None:
            torch.matmul(a, a, out=out)
            y = x
            for _ in range(5):
                y = y + x
            torch.autograd.backward(y, torch.ones_like(y))

        self._work = work
        for _ in range(5):
            work()
        self.fastest_s = self._look()
        busy = load_of_machine() > 0.25 * (os.cpu_count() or 1)
        for _ in range(looks if busy else 0):
            time.sleep(NAP_S)
            self.slowness()

    @classmethod
    def of_processor(cls) -> Pace:
        """By the thread's own time with one thread, by the wall clock with several."""
        return cls(time.thread_time if torch_or_fail().get_num_threads() == 1 else time.perf_counter)

    def _look(self) -> float:
        times = []
        for _ in range(3):
            start = self.clock()
            self._work()
            times.append(self.clock() - start)
        return min(times)

    def slowness(self) -> float:
        """Time of the piece of work now over its least so far."""
        now = self._look()
        self.fastest_s = min(self.fastest_s, now)
        return now / self.fastest_s

    def median_s(
        self,
        work: Callable[[], object],
        *,
        least: int = 7,
        least_s: float = 0.0,
        most: int = 1000,
        waits: int = WAITS,
    ) -> float:
        """Median time of at least so many repeats in quiet moments; of the least disturbed where these do not come.

        A moment is quiet when the piece of work takes next to its least before and after a millisecond of repeats.
        It is awaited `waits` times.
        """
        quiet: list[float] = []
        others: list[tuple[float, float]] = []
        waited, spent, before = 0, 0.0, self.slowness()
        while len(quiet) < least or (spent < least_s and len(quiet) < most):
            while before > QUIET and waited < waits:
                waited += 1
                time.sleep(NAP_S)
                before = self.slowness()
            if waited >= waits and len(quiet) + len(others) >= least:
                break
            times: list[float] = []
            while not times or sum(times) < 1e-3:
                start = self.clock()
                work()
                times.append(self.clock() - start)
            after = self.slowness()
            if max(before, after) <= QUIET:
                quiet += times
                spent += sum(times)
            else:
                others += [(max(before, after), one) for one in times]
            before = after
        if len(quiet) < least:
            quiet += [one for _, one in sorted(others)[: least - len(quiet)]]
        return float(np.median(quiet))


def _timer(torch: Any, pace: Pace | None) -> Callable[[Callable[[], Any]], float]:
    """A function that times another: on a processor by its pace, without one on the GPU; see the module's text."""
    if pace is not None:

        def on_cpu(work: Callable[[], object]) -> float:
            work()
            return pace.median_s(work, least_s=20e-3)

        return on_cpu

    def on_gpu(work: Callable[[], Any]) -> float:
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        times: list[float] = []
        while len(times) < 5 or (sum(times) < 5e-3 and len(times) < 50):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(10):
                work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1e-4)
        return float(np.median(times))

    return on_gpu


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "CPU"


def _cpu_clock_Hz() -> float:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    return float(path.read_text()) * 1e3 if path.exists() else 2.5e9


def _cpu_cache_B() -> float:
    """The last level of the first core's caches; 16 MiB where the system does not tell."""
    sizes = [16 * 2**20] if not Path("/sys/devices/system/cpu/cpu0/cache").exists() else []
    for path in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")):
        text = path.read_text().strip()
        sizes.append(int(text[:-1]) * {"K": 2**10, "M": 2**20}.get(text[-1], 1))
    return float(max(sizes, default=16 * 2**20))
