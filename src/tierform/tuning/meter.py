"""What does a training step take?  Time by part, peak tensor memory, energy from the machine's own counters.

Time is wall-clock time around forward, backward and optimizer (the device is waited for).  :func:`step_shares` parts
backward further: input gradients alone are timed by asking autograd only for the lowest small parameter that learns,
weight gradients are the rest.  :class:`TensorMemory` follows every tensor's storage from creation to release, so its
peak is exact for what PyTorch allocates through operators; buffers inside a kernel are not seen.
Energy: NVML's counter of a GPU, RAPL's of a CPU package; where neither can be read, energy is None and the reason is
told.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

PARTS = ("forward_s", "backward_s", "optimizer_s")


class Clock:
    """Laps in seconds; waits for the device first when it works on its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last = self._now()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = self._now()
        passed, self.last = now - self.last, now
        return passed

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class TensorMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of live tensor storage inside the block: `now_B` and `peak_B`; `held` are tensors that exist before."""

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now_B = self.peak_B = 0
        self._seen: dict[int, weakref.ref[Any]] = {}
        for tensor in held:
            self._add(tensor)

    def _add(self, tensor: Tensor) -> None:
        if tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()

        def gone(_: object, key: int = key, size: int = size) -> None:
            self._seen.pop(key, None)
            self.now_B -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.now_B += size
        self.peak_B = max(self.peak_B, self.now_B)

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> object:
        out = func(*args, **(kwargs or {}))
        for one in tree_flatten(out)[0]:
            if isinstance(one, Tensor):
                self._add(one)
        return out


def held_tensors(model: nn.Module, optimizer: Any = None) -> list[Tensor]:
    """Weights, buffers, gradients and optimizer states."""
    held = [*model.parameters(), *model.buffers()]
    held += [one.grad for one in model.parameters() if one.grad is not None]
    if optimizer is not None:
        held += [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    return held


class EnergyCounter:
    """Joules used since it was made, by GPU (NVML) and CPU packages (RAPL); `note` says what could not be read."""

    def __init__(self, device: torch.device) -> None:
        self._read: list[Callable[[], float]] = []
        missing = []
        if device.type == "cuda":
            try:
                import pynvml  # type: ignore[import-not-found]

                pynvml.nvmlInit()
                handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
                pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                self._read.append(lambda: 1e-3 * float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
            except Exception:
                missing.append("the GPU's counter (NVML, package nvidia-ml-py) cannot be read")
        packages = [one for one in sorted(Path("/sys/class/powercap").glob("intel-rapl:*")) if one.name.count(":") == 1]
        readable = [one for one in packages if _rapl(one / "energy_uj") is not None]
        for one in readable:
            self._read.append(_Wrapping(one))
        if not readable:
            missing.append("the CPU's counters (RAPL) cannot be read")
        self.note = "; ".join(missing)
        self._start = [read() for read in self._read]

    def joules(self) -> float | None:
        """Energy since the start, or None where no counter can be read."""
        if not self._read:
            return None
        return sum(read() - start for read, start in zip(self._read, self._start, strict=True))


def _rapl(path: Path) -> float | None:
    try:
        return 1e-6 * int(path.read_text())
    except (OSError, ValueError):
        return None


class _Wrapping:
    """A RAPL counter that begins anew at its range; read at least once a turn."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.turns = folder, 0.0
        self.range_J = _rapl(folder / "max_energy_range_uj") or 0.0
        self.last = _rapl(folder / "energy_uj") or 0.0

    def __call__(self) -> float:
        now = _rapl(self.folder / "energy_uj")
        if now is None:
            return self.turns + self.last
        if now < self.last:
            self.turns += self.range_J
        self.last = now
        return self.turns + now


def step_shares(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batch: object,
    optimizer: torch.optim.Optimizer,
    repeats: int = 7,
) -> dict[str, float]:
    """Median seconds of forward, input gradient, weight gradient and optimizer, and of the whole step.

    The model takes `repeats` real optimizer steps.  `weight_gradient_s` is backward less input gradients.
    """
    learning = [one for one in model.parameters() if one.requires_grad]
    lowest = next((one for one in learning if one.ndim == 1), learning[0])
    clock = Clock(learning[0].device)
    rows: list[dict[str, float]] = []
    model.train()
    for _ in range(repeats + 1):
        optimizer.zero_grad(set_to_none=True)
        value = loss(model, batch)
        clock.lap()
        torch.autograd.grad(value, [lowest])
        inputs = clock.lap()
        del value
        clock.lap()
        value = loss(model, batch)
        forward = clock.lap()
        value.backward()  # type: ignore[no-untyped-call]
        backward = clock.lap()
        optimizer.step()
        step = clock.lap()
        rows.append(
            {
                "forward_s": forward,
                "input_gradient_s": inputs,
                "weight_gradient_s": max(0.0, backward - inputs),
                "optimizer_s": step,
                "step_s": forward + backward + step,
            }
        )
    return {key: median(row[key] for row in rows[1:]) for key in rows[0]}


def step_peak_B(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batch: object,
    optimizer: torch.optim.Optimizer,
    steps: int = 2,
) -> int:
    """Peak bytes of tensors over whole training steps, weights and optimizer states included."""
    optimizer.zero_grad(set_to_none=True)
    with TensorMemory(held_tensors(model, optimizer)) as memory:
        for _ in range(steps):
            loss(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return int(memory.peak_B)
