"""Texts as windows of tokens: what calibration reads and what quality is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tierform.errors import fail
from tierform.files import read_text

MAX_TEXT_B = 256 * 2**20
_CHARACTERS_PER_TOKEN = 12  # no more text is cut than windows can need


def windows_of(path: Path | str, tokenizer: Any, count: int, length: int, *, key: str = "--data") -> Tensor:
    """The first `count` windows (count, length) of a text file's tokens; TierformError when it is too short."""
    if count < 1 or length < 8:
        fail("at least one window of at least 8 tokens is needed", key=key, value=(count, length))
    text = read_text(path, MAX_TEXT_B)
    ids = tokenizer(text[: count * length * _CHARACTERS_PER_TOKEN], add_special_tokens=False)["input_ids"]
    if len(ids) < count * length:
        fail(
            f"the text has {len(ids)} tokens; {count} windows of {length} need {count * length}",
            file=str(path),
            key=key,
            fix=f"Give a longer text, or at most {len(ids) // length} windows."
            if len(ids) >= length
            else "Give a longer text.",
        )
    return torch.tensor(ids[: count * length]).view(count, length)
