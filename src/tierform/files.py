"""Reading YAML and JSON so that each mistake has a line, and writing files whole or not at all.

YAML is read as plain data: no tags, no aliases (so no file can unfold into more than it shows), no repeated
keys, a bounded size and depth.  A :class:`Document` remembers the line of every key.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tierform.errors import TierformError, fail

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 40

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The plain content of a file and the line (from 1) on which each of its keys stands."""

    content: Any
    file: str
    lines: dict[Path_, int] = field(default_factory=dict)

    def line_of(self, location: Path_) -> int | None:
        """The line of a key, or of its nearest ancestor that has one."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.lines:
                return self.lines[location[:end]]
        return None


def read_text(path: Path | str, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file; TierformError when it is missing, too large, a folder or not UTF-8."""
    path = Path(path)
    try:
        if path.is_dir():
            fail("this is a folder, a file is needed", file=str(path))
        size = path.stat().st_size
        if size > max_bytes:
            fail(f"the file has {size} bytes; at most {max_bytes} are read", file=str(path))
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        fail("no such file", file=str(path), value=path.name, choices=near)
    except UnicodeDecodeError as error:
        fail(f"the file is not UTF-8 text (byte {error.start})", file=str(path))
    except OSError as error:
        fail(f"the file cannot be read: {error.strerror or error}", file=str(path))


def read_yaml(path: Path | str) -> Document:
    """A YAML file as plain data with line numbers; every refusal is a TierformError with its line."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, file: str) -> Document:
    """As :func:`read_yaml`, from a text."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    _refuse_deep_flow(text, file)
    reader = YAML(typ="safe")
    try:
        root = reader.compose(text)
        lines: dict[Path_, int] = {}
        content = None if root is None else _plain(root, (), lines, file, set())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fail(str(error.problem or error.context or "malformed YAML"), file=file, line=mark.line + 1 if mark else None)
    except (YAMLError, ValueError, RecursionError) as error:
        raise_from = str(error).splitlines()[0] if str(error) else type(error).__name__
        fail(f"malformed YAML: {raise_from}", file=file)
    return Document(content, file, lines)


def _refuse_deep_flow(text: str, file: str) -> None:
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        depth += line.count("[") + line.count("{") - line.count("]") - line.count("}")
        if depth > MAX_DEPTH or len(line) - len(line.lstrip(" -")) > 4 * MAX_DEPTH:
            fail(f"nested deeper than {MAX_DEPTH} levels", file=file, line=number)
        depth = max(depth, 0)


def _plain(node: Any, location: Path_, lines: dict[Path_, int], file: str, seen: set[int]) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(location, line)
    if len(location) > MAX_DEPTH:
        fail(f"nested deeper than {MAX_DEPTH} levels", file=file, line=line)
    if id(node) in seen:
        fail("aliases are not accepted", file=file, line=line, fix="Write the value out where it is used.")
    seen.add(id(node))
    kind = type(node).__name__
    if kind == "ScalarNode":
        return _scalar(node, file, line)
    if kind == "SequenceNode":
        return [_plain(child, (*location, index), lines, file, seen) for index, child in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, child in node.value:
        at = key_node.start_mark.line + 1
        if type(key_node).__name__ != "ScalarNode":
            fail("a key must be a plain word", file=file, line=at)
        key = str(key_node.value)
        if key in result:
            fail("this key stands twice", file=file, line=at, key=key)
        lines[(*location, key)] = at
        result[key] = _plain(child, (*location, key), lines, file, seen)
    return result


def _scalar(node: Any, file: str, line: int) -> Any:
    tag, text = str(node.tag), node.value
    kind = tag.rsplit(":", 1)[-1]
    if not tag.startswith("tag:yaml.org,2002:") or kind not in ("str", "int", "float", "bool", "null", "timestamp"):
        fail(f"the tag {tag!r} is not accepted", file=file, line=line, value=text)
    if kind == "int":
        digits = text.replace("_", "")
        try:
            return int(digits, 0) if len(digits) < 400 else text
        except ValueError:
            return text
    if kind == "float":
        try:
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            return text
    if kind == "bool":
        return text.lower() in ("true", "yes", "on")
    return None if kind == "null" else text


def read_json(path: Path | str) -> Document:
    """A JSON file as plain data (without line numbers for keys); refusals are TierformErrors with their line."""
    text = read_text(path)
    try:
        return Document(json.loads(text, object_pairs_hook=_no_repeats), str(path))
    except json.JSONDecodeError as error:
        fail(f"malformed JSON: {error.msg}", file=str(path), line=error.lineno)
    except RecursionError:
        fail("nested too deeply", file=str(path))
    except ValueError as error:
        fail(str(error), file=str(path))


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice")
        result[key] = value
    return result


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well and vanishes when it does not."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        fail(f"cannot write here: {error.strerror or error}", file=str(target))
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        try:
            temporary.replace(target)
        except OSError as error:
            fail(f"cannot write here: {error.strerror or error}", file=str(target))
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a whole text file, or leave what was there."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, content: Any) -> None:
    """Write JSON with a stable layout (equal content gives equal bytes); infinities and NaN become null."""
    write_text(path, json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def cache_folder(shelf: str) -> Path | None:
    """Where a room keeps what took long: the user's cache folder, or TIERFORM_CACHE; None when that is ``off``."""
    chosen = os.environ.get("TIERFORM_CACHE", "")
    if chosen.lower() in ("off", "0", "none", "no"):
        return None
    if chosen:
        return Path(chosen) / shelf
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "tierform" / shelf


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content


__all__ = [
    "Document",
    "TierformError",
    "atomic_path",
    "cache_folder",
    "parse_yaml",
    "read_json",
    "read_text",
    "read_yaml",
    "write_json",
    "write_text",
]
