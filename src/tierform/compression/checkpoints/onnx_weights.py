"""The weights of an ONNX file, by name: enough of the protobuf coding to read initializers and what uses them.

A message is a run of (field number, wire type, value).  Only the fields needed are followed: the graph of a model, its
nodes' inputs, names and kinds, and its initializers.  Limits: float32 weights kept as raw bytes in the file itself.
Source: the ONNX specification (onnx.proto) and the protobuf encoding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail

_FLOAT = 1
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_NODE_INPUT, _NODE_NAME, _NODE_KIND = 1, 3, 4
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: its name, its kind, and the names of its inputs."""

    name: str
    kind: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """A file's float32 initializers by name, and its operations."""

    tensors: dict[str, NDArray[np.float32]]
    nodes: tuple[Node, ...]


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(content) and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number does not end")


def _fields(content: memoryview) -> Iterator[tuple[int, Any]]:
    """(field, value): whole numbers, or the bytes of what has a length."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield field, value
            continue
        if wire == 2:
            size, at = _varint(content, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(content):
            raise ValueError("a field leaves its message")
        yield field, content[at : at + size]
        at += size


def _tensor(content: memoryview) -> tuple[str, NDArray[np.float32] | None]:
    dims: list[int] = []
    name, kind, raw = "", 0, None
    for field, value in _fields(content):
        if field == _DIMS:
            dims += [value] if isinstance(value, int) else list(_packed(value))
        elif field == _DATA_TYPE:
            kind = value
        elif field == _TENSOR_NAME:
            name = bytes(value).decode()
        elif field == _RAW:
            raw = value
    if kind != _FLOAT or raw is None or len(raw) != 4 * math.prod(dims):
        return name, None
    return name, np.frombuffer(raw, "<f4").reshape(dims)


def _packed(content: memoryview) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = _varint(content, at)
        yield value


def read_onnx(path: Path) -> Weights:
    """The initializers and operations of a file; TierformError when it is not an ONNX file."""
    tensors: dict[str, NDArray[np.float32]] = {}
    nodes = []
    try:
        graph = next(value for field, value in _fields(memoryview(path.read_bytes())) if field == _GRAPH)
        for field, value in _fields(graph):
            if field == _INITIALIZER:
                name, values = _tensor(value)
                if values is not None:
                    tensors[name] = values
            elif field == _NODE:
                parts = list(_fields(value))
                inputs = tuple(bytes(one).decode() for number, one in parts if number == _NODE_INPUT)
                texts = {number: bytes(one).decode() for number, one in parts if number in (_NODE_NAME, _NODE_KIND)}
                nodes.append(Node(texts.get(_NODE_NAME, ""), texts.get(_NODE_KIND, ""), inputs))
    except (ValueError, StopIteration, TypeError, UnicodeDecodeError) as error:
        fail(f"this is not an ONNX file: {error}", file=str(path))
    return Weights(tensors, tuple(nodes))
