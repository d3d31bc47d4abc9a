"""Recomputation layer by layer: which layers run again in the backward pass, and how much of them.

A text says it: ``none``, ``selective`` (attention cores), ``full`` (whole layers; Chen et al., 2016), and behind a
colon the layers that do so: ``full:12`` the first twelve (as Megatron-LM's block method), ``full:0,4-7`` those of a
list of layers and ranges; all others keep what they need.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tierform.errors import Problem, nearest

RECOMPUTATIONS = ("none", "selective", "full")
_NUMBER = "[0-9]{1,9}"
_LAYERS = re.compile(f"{_NUMBER}(-{_NUMBER})?(,{_NUMBER}(-{_NUMBER})?)*")


def recomputation_problems(text: object) -> list[Problem]:
    """What is wrong with a text."""
    mode, colon, layers = str(text).partition(":")
    fix = f"Choose one of {', '.join(RECOMPUTATIONS)}, with layers behind it: full:12 or full:0,4-7."
    if not isinstance(text, str) or mode not in RECOMPUTATIONS:
        near = nearest(mode, RECOMPUTATIONS)
        return [Problem("not a known choice", key="recomputation", value=str(text), nearest=near, fix=fix)]
    if colon and (mode == "none" or not _LAYERS.fullmatch(layers)):
        return [Problem("not a number of layers, nor a list of them", key="recomputation", value=text, fix=fix)]
    if any(int(a) > int(b) for a, b in _ranges(layers)):
        return [Problem("a range of layers ends before it begins", key="recomputation", value=text, fix=fix)]
    return []


def _ranges(layers: str) -> list[tuple[str, str]]:
    parts = [part.partition("-") for part in layers.split(",") if part]
    return [(first, last or first) for first, _, last in parts]


@lru_cache(maxsize=256)
def _chosen(layers: str) -> tuple[range, ...]:
    if layers.isdecimal():
        return (range(int(layers)),)
    return tuple(range(int(first), int(last) + 1) for first, last in _ranges(layers))


def recomputation_of(text: str, layer: int | str) -> str:
    """What layer number `layer` recomputes: none, selective or full; parts that are no layer recompute nothing."""
    mode, colon, layers = text.partition(":")
    if not isinstance(layer, int):
        return "none"
    return mode if not colon or any(layer in run for run in _chosen(layers)) else "none"


def layer_problems(text: str, layers: int) -> list[Problem]:
    """Layers that a model of so many does not have."""
    _, colon, chosen = text.partition(":")
    runs = _chosen(chosen) if colon else ()
    last = max((run.stop for run in runs), default=0)
    if last <= layers:
        return []
    what = f"the model has only {layers} layers"
    return [Problem(what, key="recomputation", value=text, fix=f"Choose layers 0 to {layers - 1}.")]
