"""What a lent accelerator does, in one run of under eight minutes, as one JSON file.  It needs torch and nothing else.

    python benchmarks/device.py --out h100.json --chip h100      # the GPU that torch sees first
    python benchmarks/device.py --dry --out dry.json             # a processor, tiny sizes: whether all of it runs

Measured are: idle power; the floor while a kernel works that does nearly nothing; bandwidth; matrix products by format
(time in a CUDA graph over six weights in turn; energy, power and clock of some, over seconds each); attention, forward
and backward by length, and of one new token; clock, power and rate of a long product under the board's limit; one
decode step, one LoRA and one full training step of a small Llama, with the time of the host.  Energy is NVML's counter
through the driver's own library, else mean power (torch reads it with `pynvml`) times time; what a machine does not
tell is null.

`tierform calibrate --from FILE` makes a chip of it, `tierform validate models --data FILE` holds a chip against it.
Sections come in the order of their worth; at --seconds no new one begins, and Ctrl-C keeps what is done.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

SCHEMA = "tierform.device/1"
WEIGHTS = 6  # in turn: as many distinct ones as the public collections of kernel times use
HEADS, KV_HEADS, HEAD = 32, 8, 128
LLAMA = {  # Llama 3.2 1B
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
TINY = LLAMA | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "tf32": torch.float32}


class Board:
    """Power, energy and clock of the GPU that torch uses; None for what cannot be read."""

    def __init__(self, on_gpu: bool) -> None:
        self.library: Any = None
        self.handle = ctypes.c_void_p()
        if not on_gpu:
            return
        with contextlib.suppress(Exception):  # no driver's library here: torch may still tell the power
            self.library = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
            assert self.library.nvmlInit_v2() == 0
            assert self._find() == 0

    def _find(self) -> int:
        found = torch.cuda.get_device_properties(0)
        bus = getattr(found, "pci_bus_id", None)
        if bus is not None:
            name = f"{found.pci_domain_id:08x}:{bus:02x}:{found.pci_device_id:02x}.0".encode()
            if self.library.nvmlDeviceGetHandleByPciBusId_v2(name, ctypes.byref(self.handle)) == 0:
                return 0
        return int(self.library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.handle)))

    def _read(self, call: str, kind: Any, *given: Any) -> float | None:
        if not self.handle:
            return None
        value = kind()
        with contextlib.suppress(AttributeError):
            if getattr(self.library, call)(self.handle, *given, ctypes.byref(value)) == 0:
                return float(value.value)
        return None

    def energy_J(self) -> float | None:
        """The board's counter of energy."""
        found = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if found is None else found * 1e-3

    def power_W(self) -> float | None:
        """Power now."""
        found = self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        if found is None:
            with contextlib.suppress(Exception):  # torch reads it with pynvml or amdsmi
                found = float(torch.cuda.power_draw())
        return None if found is None else found * 1e-3

    def limit_W(self) -> float | None:
        """The power limit that holds."""
        found = self._read("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint)
        return None if found is None else found * 1e-3

    def clock_Hz(self) -> float | None:
        """Clock of the multiprocessors now."""
        found = self._read("nvmlDeviceGetClockInfo", ctypes.c_uint, ctypes.c_int(1))
        if found is None:
            with contextlib.suppress(Exception):
                found = float(torch.cuda.clock_rate())
        return None if found is None else found * 1e6


class Bench:
    """Sizes, timers and the figures so far."""

    def __init__(self, dry: bool, seconds: float) -> None:
        self.dry, self.on_gpu = dry, not dry
        self.where = "cpu" if dry else "cuda"
        self.board = Board(self.on_gpu)
        self.end = time.monotonic() + seconds
        self.hold_s = 0.02 if dry else 1.5
        self.main = "fp32" if dry else "bf16"

    def wait(self) -> None:
        """Until the board is done."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def graph(self, works: list[Callable[[], Any]]) -> Callable[[], Any]:
        """The calls one after the other: one CUDA graph, so that no time of the host is in them."""

        def plain() -> None:
            for work in works:
                work()

        plain()
        self.wait()
        if not self.on_gpu:
            return plain
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            plain()
        torch.cuda.current_stream().wait_stream(side)
        made = torch.cuda.CUDAGraph()
        with torch.cuda.graph(made):
            plain()
        return made.replay

    def seconds(self, work: Callable[[], Any], least_s: float = 0.02) -> float:
        """The median time of one call, over at least five."""
        work()
        self.wait()
        times: list[float] = []
        while len(times) < 5 or (sum(times) < least_s and len(times) < 200):
            if self.on_gpu:
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                work()
                end.record()
                torch.cuda.synchronize()
                times.append(begin.elapsed_time(end) * 1e-3)
            else:
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    def held(self, work: Callable[[], Any], hold_s: float = 0.0) -> dict[str, float | None]:
        """Time, energy, power and clock of one call, of calls over seconds, after a third of that to settle."""
        hold = hold_s or self.hold_s
        once = max(self.seconds(work, hold / 10), 1e-7)
        calls = max(3, int(hold / once))
        chunk = max(1, int(0.05 / once))  # so that the host is never far ahead of the board
        for _ in range(max(1, calls // 3)):
            work()
        self.wait()
        powers, clocks = [], []
        before, start, done = self.board.energy_J(), time.perf_counter(), 0
        while done < calls:
            for _ in range(chunk):
                work()
            self.wait()
            done += chunk
            powers.append(self.board.power_W())
            clocks.append(self.board.clock_Hz())
        spent, after = time.perf_counter() - start, self.board.energy_J()
        power = mean(powers[len(powers) // 3 :])
        energy = (after - before) / done if before is not None and after is not None else None
        if energy is not None:
            power = energy * done / spent
        elif power is not None:
            energy = power * spent / done
        return {"seconds": spent / done, "energy_J": energy, "power_W": power, "clock_Hz": mean(clocks)}


def mean(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None


# -- what is measured -----------------------------------------------------------------------------------------------
def idle(bench: Bench) -> Iterator[dict[str, Any]]:
    """Power without work, and with a kernel that does nearly nothing."""
    bench.wait()
    time.sleep(0.01 if bench.dry else 3.0)
    before, start, powers = bench.board.energy_J(), time.perf_counter(), []
    for _ in range(2 if bench.dry else 20):
        time.sleep(0.001 if bench.dry else 0.2)
        powers.append(bench.board.power_W())
    after = bench.board.energy_J()
    power = mean(powers)
    if before is not None and after is not None:
        power = (after - before) / (time.perf_counter() - start)
    yield {"what": "idle", "power_W": power}
    tiny = torch.ones(64, device=bench.where)
    work = bench.graph([lambda: tiny.add_(1.0)] * 200)
    found = bench.held(work, 2 * bench.hold_s)
    each = (found["seconds"] or 0.0) / 200
    yield {"what": "floor", "power_W": found["power_W"], "clock_Hz": found["clock_Hz"], "seconds": each}


def stream(bench: Bench) -> Iterator[dict[str, Any]]:
    """A copy: what the memory streams, and what a byte takes."""
    source = torch.ones(2**18 if bench.dry else 2**28, dtype=torch.float32, device=bench.where)
    target = torch.empty_like(source)
    yield {"bytes": 8 * source.numel(), **bench.held(lambda: target.copy_(source))}


def operands(bench: Bench, form: str, m: int, n: int, k: int) -> list[Callable[[], Any]]:
    """A product over weights in turn, as calls; an exception where the device or torch has no such kernel."""
    where = bench.where
    torch.backends.cuda.matmul.allow_tf32 = form == "tf32"
    if form == "fp8":
        wide = torch.randn(m, k, device=where).to(torch.float8_e4m3fn)
        weights = [torch.randn(n, k, device=where).to(torch.float8_e4m3fn) for _ in range(WEIGHTS)]
        one = torch.ones((), device=where)

        def fp8(w: Any) -> Any:
            return torch._scaled_mm(wide, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

        return [lambda w=w: fp8(w) for w in weights]
    if form == "int8":
        x = torch.randint(-127, 127, (m, k), device=where, dtype=torch.int8)
        eights = [torch.randint(-127, 127, (n, k), device=where, dtype=torch.int8) for _ in range(WEIGHTS)]
        return [lambda w=w: torch._int_mm(x, w.t()) for w in eights]
    y = torch.randn(m, k, device=where, dtype=torch.float32).to(DTYPES[form])
    given = [torch.randn(n, k, device=where, dtype=torch.float32).to(DTYPES[form]) for _ in range(WEIGHTS)]
    out = torch.empty(m, n, device=where, dtype=DTYPES[form])
    return [lambda w=w: torch.matmul(y, w.t(), out=out) for w in given]


def shapes(bench: Bench, few: bool) -> list[tuple[int, int, int]]:
    """Shapes of products: all pairs of a few rows and widths, in an order that is always the same."""
    if bench.dry:
        return [(m, n, k) for m in (1, 4, 16, 64) for n in (32, 64, 96) for k in (32, 64, 128)]
    if few:
        return [(m, n, n) for m in (1, 16, 128, 1024, 4096) for n in (2048, 4096, 8192)]
    rows = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    sizes = [(1024, 4096), (2048, 2048), (4096, 4096), (6144, 4096), (4096, 14336), (28672, 4096), (8192, 8192)]
    sizes += [(10240, 8192), (1280, 8192), (8192, 1024), (3072, 12288), (16384, 2048)]
    return [(m, n, k) for m in rows for n, k in sizes]


def products(bench: Bench, skipped: list[str]) -> Iterator[dict[str, Any]]:
    """Times of products by format."""
    forms = (bench.main,) if bench.dry else ("bf16", "fp8", "fp16", "int8", "tf32", "fp32")
    for form in forms:
        for m, n, k in shapes(bench, few=form != bench.main):
            try:
                work = bench.graph(operands(bench, form, m, n, k))
                seconds = bench.seconds(work, 0.002 if bench.dry else 0.02) / WEIGHTS
            except (RuntimeError, AttributeError, NotImplementedError) as error:
                skipped.append(f"product {form} {m}x{n}x{k}: {str(error).splitlines()[0][:120]}")
                if len([text for text in skipped if text.startswith(f"product {form} ")]) > 3:
                    break
                continue
            yield {"format": form, "m": m, "n": n, "k": k, "seconds": seconds}


def energies(bench: Bench, skipped: list[str]) -> Iterator[dict[str, Any]]:
    """Energy, power and clock of products by format: bound by arithmetic, by memory, and between."""
    forms = (bench.main,) if bench.dry else ("bf16", "fp8", "fp16", "int8", "tf32", "fp32")
    sizes = ((8, 64, 64), (64, 64, 64)) if bench.dry else ((8, 8192, 8192), (256, 8192, 8192), (8192, 8192, 8192))
    for form in forms:
        for m, n, k in sizes:
            try:
                work = bench.graph(operands(bench, form, max(m, 32) if form == "int8" else m, n, k))
                found = bench.held(work)
            except (RuntimeError, AttributeError, NotImplementedError) as error:
                skipped.append(f"energy {form} {m}x{n}x{k}: {str(error).splitlines()[0][:120]}")
                continue
            energy = found["energy_J"]
            found |= {"seconds": (found["seconds"] or 0) / WEIGHTS, "energy_J": energy and energy / WEIGHTS}
            yield {"format": form, "m": max(m, 32) if form == "int8" else m, "n": n, "k": k, **found}


def attention(bench: Bench) -> Iterator[dict[str, Any]]:
    """Causal attention forward and backward by length, and one new token over a cache."""
    heads, kv, size = (4, 4, 16) if bench.dry else (HEADS, KV_HEADS, HEAD)
    form = DTYPES[bench.main]

    def made(batch: int, length: int, many: int, grad: bool) -> torch.Tensor:
        return torch.randn(batch, many, length, size, device=bench.where, dtype=form, requires_grad=grad)

    for length in (32, 64) if bench.dry else (512, 1024, 2048, 4096, 8192, 16384):
        batch = 1 if bench.dry else max(1, 16384 // length)
        q, k, v = made(batch, length, heads, True), made(batch, length, kv, True), made(batch, length, kv, True)
        row = {"batch": batch, "queries": length, "history": 0, "heads": heads, "kv_heads": kv, "head_dim": size}
        row |= {"format": bench.main}

        def forward(q: Any = q, k: Any = k, v: Any = v) -> Any:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv)

        yield {"pass": "forward", **row, "seconds": bench.seconds(forward)}
        y = forward()
        dy = torch.ones_like(y)
        back = bench.seconds(lambda q=q, k=k, v=v, y=y, dy=dy: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
        yield {"pass": "backward", **row, "seconds": back}
    for history in (32,) if bench.dry else (1024, 4096, 16384):
        batch = 1 if bench.dry else 16
        q, k, v = made(batch, 1, heads, False), made(batch, history, kv, False), made(batch, history, kv, False)
        seconds = bench.seconds(
            bench.graph([lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv)])
        )
        yield {
            "pass": "forward",
            "batch": batch,
            "queries": 1,
            "history": history - 1,
            "heads": heads,
            "kv_heads": kv,
            "head_dim": size,
            "format": bench.main,
            "seconds": seconds,
        }


def capped(bench: Bench) -> Iterator[dict[str, Any]]:
    """A long product: rate, clock and power over time, as the board's limit takes hold."""
    size = 64 if bench.dry else 8192
    work = bench.graph(operands(bench, bench.main, size, size, size))
    begin, lasts = time.perf_counter(), 0.02 if bench.dry else 12.0
    while (passed := time.perf_counter() - begin) < lasts:
        seconds = bench.seconds(work, lasts / 60)
        power, clock = bench.board.power_W(), bench.board.clock_Hz()
        rate = 2.0 * size**3 * WEIGHTS / seconds
        yield {"at_s": passed, "size": size, "rate_per_s": rate, "power_W": power, "clock_Hz": clock}


# -- a small Llama --------------------------------------------------------------------------------------------------
class Llama(torch.nn.Module):
    """Llama in plain torch: RMSNorm, rotary positions, grouped queries, SwiGLU, head tied to the embedding."""

    def __init__(self, c: dict[str, Any], where: str, form: torch.dtype, rank: int = 0) -> None:
        super().__init__()
        self.c, h, f, d = c, c["hidden_size"], c["intermediate_size"], c["head_dim"]
        q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
        self.sizes = {
            "q": (q, h),
            "k": (kv, h),
            "v": (kv, h),
            "o": (h, q),
            "gate": (f, h),
            "up": (f, h),
            "down": (h, f),
        }

        def weight(*shape: int, learns: bool = not rank) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.randn(*shape, device=where, dtype=form) * 0.02, requires_grad=learns)

        self.word, self.last = weight(c["vocab_size"], h), weight(h)
        self.layers = torch.nn.ModuleList()
        for _ in range(c["num_hidden_layers"]):
            layer = torch.nn.Module()
            for name, shape in self.sizes.items():
                layer.register_parameter(name, weight(*shape))
                if rank:
                    layer.register_parameter(f"{name}_a", weight(rank, shape[1], learns=True))
                    layer.register_parameter(f"{name}_b", weight(shape[0], rank, learns=True))
            layer.register_parameter("norm_1", weight(h))
            layer.register_parameter("norm_2", weight(h))
            self.layers.append(layer)

    def _linear(self, layer: Any, name: str, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, getattr(layer, name))
        if hasattr(layer, f"{name}_a"):
            y = y + F.linear(F.linear(x, getattr(layer, f"{name}_a")), getattr(layer, f"{name}_b"))
        return y

    def forward(self, ids: torch.Tensor, past: list[tuple[torch.Tensor, torch.Tensor]] | None = None) -> torch.Tensor:
        """Logits of all tokens, or of the last one behind a cache that has a place for it."""
        c = self.c
        b, t, d, h = *ids.shape, c["head_dim"], c["hidden_size"]
        at = past[0][0].shape[2] - t if past else 0
        places = torch.arange(at, at + t, device=ids.device, dtype=torch.float32)
        angle = torch.outer(places, 1e4 ** (-torch.arange(0, d, 2, device=ids.device) / d)).repeat(1, 2)
        cosine, sine = angle.cos().to(self.word.dtype), angle.sin().to(self.word.dtype)

        def turned(x: torch.Tensor) -> torch.Tensor:
            return x * cosine + torch.cat((-x[..., d // 2 :], x[..., : d // 2]), -1) * sine

        x = F.embedding(ids, self.word)
        for index, layer in enumerate(self.layers):
            y = F.rms_norm(x, (h,), layer.norm_1)
            q, k, v = (self._linear(layer, n, y).view(b, t, -1, d).transpose(1, 2) for n in "qkv")
            q, k = turned(q), turned(k)
            if past:  # one new token: the cache has a place for it
                keys, values = past[index]
                keys[:, :, -t:], values[:, :, -t:] = k, v
                k, v = keys, values
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=past is None, enable_gqa=True)
            x = x + self._linear(layer, "o", mixed.transpose(1, 2).reshape(b, t, -1))
            y = F.rms_norm(x, (h,), layer.norm_2)
            y = F.silu(self._linear(layer, "gate", y)) * self._linear(layer, "up", y)
            x = x + self._linear(layer, "down", y)
        return F.linear(F.rms_norm(x if past is None else x[:, -1:], (h,), self.last), self.word)


def stepped(bench: Bench, step: Callable[[], Any], row: dict[str, Any]) -> dict[str, Any]:
    """A step's time and energy, the time in which the host has issued it, and the most memory that torch held."""
    step()
    bench.wait()
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    hosts = []
    for _ in range(3):
        start = time.perf_counter()
        step()
        hosts.append(time.perf_counter() - start)
        bench.wait()
    memory = float(torch.cuda.max_memory_allocated()) if bench.on_gpu else None
    return {**row, **bench.held(step, 2 * bench.hold_s), "host_s": statistics.median(hosts), "memory_B": memory}


def decoding(bench: Bench, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One decode step, issued by the host and captured in a graph."""
    model, form = Llama(config, bench.where, DTYPES[bench.main]), DTYPES[bench.main]
    sequence = 32 if bench.dry else 1024
    for batch in (2,) if bench.dry else (1, 32):
        shape = (batch, config["num_key_value_heads"], sequence + 1, config["head_dim"])
        past = [
            (torch.zeros(shape, device=bench.where, dtype=form), torch.zeros(shape, device=bench.where, dtype=form))
            for _ in model.layers
        ]
        ids = torch.ones(batch, 1, dtype=torch.int64, device=bench.where)
        with torch.no_grad():
            work = lambda model=model, ids=ids, past=past: model(ids, past)  # noqa: E731
            row = {"what": "decode", "batch": batch, "sequence": sequence}
            yield stepped(bench, work, row | {"captured": False})
            if bench.on_gpu:
                yield stepped(bench, bench.graph([work]), row | {"captured": True})


def training(bench: Bench, config: dict[str, Any], rank: int) -> Iterator[dict[str, Any]]:
    """One training step with AdamW in the weights' own format: LoRA on all matrices, or all parameters."""
    model = Llama(config, bench.where, DTYPES[bench.main], rank)
    learns = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=1e-6, fused=bench.on_gpu)
    batch, sequence = (2, 32) if bench.dry else (4, 1024)
    ids = torch.ones(batch, sequence, dtype=torch.int64, device=bench.where)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model(ids)
        F.cross_entropy(logits.view(-1, logits.shape[-1]), ids.view(-1)).backward()
        optimizer.step()

    row = {"what": "lora" if rank else "full", "batch": batch, "sequence": sequence, "captured": False}
    yield stepped(bench, step, row | {"rank": rank})


# -- the run --------------------------------------------------------------------------------------------------------
def described(bench: Bench) -> dict[str, Any]:
    """The device as the system reports it."""
    if bench.dry:
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
        return {
            "name": platform.processor() or platform.machine() or "processor",
            "kind": "cpu",
            "memory_B": pages,
            "multiprocessors": torch.get_num_threads(),
            "clock_Hz": None,
            "l2_B": None,
            "board_power_W": None,
        }
    found = torch.cuda.get_device_properties(0)
    rate = getattr(found, "clock_rate", None)
    return {
        "name": found.name,
        "kind": "cuda",
        "memory_B": float(found.total_memory),
        "multiprocessors": found.multi_processor_count,
        "clock_Hz": rate and float(rate) * 1e3,
        "l2_B": getattr(found, "L2_cache_size", None),
        "board_power_W": bench.board.limit_W(),
    }


def fitting(bench: Bench) -> dict[str, Any]:
    """The small Llama, with fewer layers where full training (8 bytes a parameter, activations) has no room."""
    if bench.dry:
        return TINY
    free = torch.cuda.mem_get_info()[0]
    layers = int((0.8 * free - 14e9) / (16 * 0.9e9 + 16 * 61e6) * 16) if free < 40e9 else 16
    return LLAMA | {"num_hidden_layers": max(1, min(16, layers))}


def write(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures an accelerator with torch.")
    parser.add_argument("--out", type=Path, help="the JSON file; without it the figures are printed")
    parser.add_argument("--chip", default="", help="the chip of Tierform's library (or file) that this is")
    parser.add_argument("--dry", action="store_true", help="on the processor, at tiny sizes")
    parser.add_argument("--seconds", type=float, default=400.0, help="no new section begins after so many")
    given = parser.parse_args()
    dry = given.dry or not torch.cuda.is_available()
    if dry and not given.dry:
        print("torch sees no GPU: a dry run on the processor, at tiny sizes", file=sys.stderr)
    torch.manual_seed(0)
    bench, begin = Bench(dry, given.seconds), time.monotonic()
    skipped: list[str] = []
    config = fitting(bench)
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "device": described(bench),
        "chip": given.chip,
        "dry": dry,
        "torch": torch.__version__,
        "weights_in_turn": WEIGHTS,
        "model": config,
        "power": [],
        "copies": [],
        "products": [],
        "energies": [],
        "attention": [],
        "capped": [],
        "runs": [],
        "skipped": skipped,
    }
    sections: list[tuple[str, Callable[[], Iterator[dict[str, Any]]]]] = [
        ("power", lambda: idle(bench)),
        ("copies", lambda: stream(bench)),
        ("energies", lambda: energies(bench, skipped)),
        ("runs", lambda: decoding(bench, config)),
        ("runs", lambda: training(bench, config, 16)),
        ("runs", lambda: training(bench, config, 0)),
        ("products", lambda: products(bench, skipped)),
        ("attention", lambda: attention(bench)),
        ("capped", lambda: capped(bench)),
    ]
    stopped = False
    for name, section in sections:
        start = time.monotonic()
        try:
            for row in section():
                content[name].append(row)
                if time.monotonic() > bench.end:
                    skipped.append(f"{name}: the rest, after {given.seconds:g} s")
                    break
        except KeyboardInterrupt:
            skipped.append(f"{name}: stopped")
            stopped = True
        except (RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
            skipped.append(f"{name}: {str(error).splitlines()[0][:200]}")
        if bench.on_gpu:
            torch.cuda.empty_cache()
        content["seconds"] = time.monotonic() - begin
        write(given.out, content)
        print(f"{name}: {len(content[name])} rows, {time.monotonic() - start:.1f} s", file=sys.stderr)
        if stopped or time.monotonic() > bench.end:
            break
    if given.out is None:
        print(json.dumps(content, indent=1))
    for text in skipped:
        print(f"skipped {text}", file=sys.stderr)
    return 130 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
