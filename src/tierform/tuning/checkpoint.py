"""A training run on disk: one file, written whole, checked by a digest before anything of it is believed.

The file is a line (format and SHA-256 of the rest) and PyTorch's own serialization of tensors and plain values; reading
runs no code from the file.  The states of the random generators are kept, so that a run continues bit by bit on a CPU.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tierform.errors import Problem, TierformError, fail, first_line
from tierform.files import atomic_path
from tierform.tuning.checkpoint_check import same

MAGIC = b"tierform.tuning/2 "


def write(path: Path | str, content: Mapping[str, object]) -> None:
    """Write a checkpoint, or leave the one that was there."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    payload = buffer.getbuffer()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)


def read(path: Path | str) -> dict[str, Any]:
    """A checkpoint's content on the CPU; TierformError when it is missing, damaged or not one."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.readline(200)
            payload = file.read()
    except OSError as error:
        fail(f"the checkpoint cannot be read: {error.strerror or error}", file=str(path))
    if head.startswith(b"tierform.tuning/") and not head.startswith(MAGIC):
        what = "the checkpoint has another format: it does not name everything that decided its run"
        fail(what, file=str(path), fix="Finish that run with the version that began it, or begin anew with --fresh.")
    if not head.startswith(MAGIC):
        fail("this is not a checkpoint of tierform tune", file=str(path))
    if hashlib.sha256(payload).hexdigest().encode() != head[len(MAGIC) :].strip():
        fail("the checkpoint is damaged: its digest does not match", file=str(path), fix="Use an earlier one.")
    try:
        content: dict[str, object] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:
        fail(f"the checkpoint cannot be read: {first_line(error)}", file=str(path))
    if not isinstance(content, dict):
        fail("the checkpoint does not hold a run", file=str(path))
    return content


def settings(shape: str, rule: Any, low_rank: Any, layer: int | None) -> dict[str, Any]:
    """What of a model, a rule and a low-rank mode decides a run, as plain values."""
    low = {key: list(one) if isinstance(one, tuple) else one for key, one in asdict(low_rank).items()}
    return {
        "model": shape,
        "rule": type(rule).__name__,
        "window": rule.window,
        **low,
        "layer": layer,
        **rule.thresholds(),
    }


def compare(found: Mapping[str, object], here: Mapping[str, object], file: str) -> None:
    """TierformError with everything in which a checkpoint's run differs from this one."""
    problems = [
        Problem(
            "the checkpoint was written by a run with another setting",
            file,
            key=key,
            value=found.get(key, "none"),
            fix=f"Here it is {here.get(key)!r}; begin anew with --fresh, or set it back.",
        )
        for key in {**here, **{str(one): None for one in found}}
        if not same(found.get(key), here.get(key))
    ]
    if problems:
        raise TierformError(problems)


def random_state() -> dict[str, Any]:
    """The states of PyTorch's, Python's and NumPy's generators as plain values."""
    kind, keys, place, gauss, cached = np.random.get_state()  # noqa: NPY002
    version, numbers, next_gauss = random.getstate()
    state: dict[str, object] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(numbers), next_gauss],
        "numpy": [kind, [int(one) for one in keys], int(place), int(gauss), float(cached)],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Continue the generators from :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, place, has, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has, cached))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
