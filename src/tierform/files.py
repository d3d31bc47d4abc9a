"""Reading YAML and JSON so that each mistake has a line, and writing files whole or not at all.

YAML is read as plain data: no tags, no aliases (so no file unfolds into more than it shows), no repeated keys, bounded
in size, depth and number of entries, no control characters in a text; a :class:`Document` has the line of every key.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tierform.errors import fail, first_line
from tierform.folders import make_folder, no_folder
from tierform.kept_documents import keep, kept
from tierform.part_files import lock, new_part, remove_stale
from tierform.units import whole_number
from tierform.yaml_words import plain_reader

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 40
MAX_ENTRIES = 200_000  # of a YAML file: each costs half a kilobyte while it is read
MAX_JSON_ENTRIES = 3_000_000
LONGEST_INTEGER = 10**19
_FULL = (errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC, errno.EFBIG)
_UNCLEAN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/proc/")

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


def key_steps(key: str) -> Path_:
    """The steps of a key such as ``package.dies.0.size``, places in lists as numbers."""
    numbers = [(step, whole_number(step)) for step in key.split(".")]
    return tuple(step if number is None else number for step, number in numbers)


def read_text(path: Path | str, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file; TierformError when it is missing, too large, a folder or not UTF-8."""
    path = Path(path)
    try:
        if path.is_dir():
            fail("this is a folder, a file is needed", file=str(path))
        content = bytearray()
        with path.open("rb") as opened:  # piece by piece: a pipe or a device has no size to ask for
            while len(content) <= max_bytes and (piece := opened.read(2**20)):
                content += piece
        if len(content) > max_bytes:
            fail(f"the file is too large: at most {max_bytes} bytes are read", file=str(path))
        text = content.decode("utf-8-sig")
        if "\0" in text:
            line = text[: text.index("\0")].count("\n") + 1
            fail("the file is not text: it has a NUL character", file=str(path), line=line)
        return text
    except FileNotFoundError:
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        fail("no such file", file=str(path), value=path.name, choices=near)
    except UnicodeDecodeError as error:
        fail(f"the file is not UTF-8 text (byte {error.start})", file=str(path))
    except (OSError, ValueError) as error:
        fail(f"the file cannot be read: {_reason(error)}", file=str(path))


def read_yaml(path: Path | str) -> Document:
    """A YAML file as plain data with line numbers; every refusal is a TierformError with its line."""
    text, folder = read_text(path), cache_folder("documents")
    if (before := kept(folder, Path(path), text)) is not None:
        return Document(before[0], str(path), before[1])
    document = parse_yaml(text, str(path))
    keep(folder, Path(path), text, (document.content, document.lines))
    return document


def parse_yaml(text: str, file: str) -> Document:
    """As :func:`read_yaml`, from a text."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    _refuse_large(text, file)
    reader = plain_reader()
    try:
        root = reader.compose(text)
        lines: dict[Path_, int] = {}
        content = None if root is None else _plain(root, (), lines, file, set())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fail(str(error.problem or error.context or "malformed YAML"), file=file, line=mark.line + 1 if mark else None)
    except (YAMLError, ValueError, RecursionError) as error:
        raise_from = first_line(error)
        fail(f"malformed YAML: {raise_from}", file=file)
    return Document(content, file, lines)


def _refuse_large(text: str, file: str) -> None:
    """Refuse what would cost far more time or memory than its size, before it is parsed."""
    if text.count(",") + text.count("\n") + text.count("{") + text.count("[") > MAX_ENTRIES:
        fail(f"the file has more than {MAX_ENTRIES} entries", file=file)
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        depth += line.count("[") + line.count("{") - line.count("]") - line.count("}")
        lead = len(line) - len(line.lstrip(" -?:"))
        if depth > MAX_DEPTH or lead > 4 * MAX_DEPTH or line.count("? ") + line.count("- ") > 4 * MAX_DEPTH:
            fail(f"nested deeper than {MAX_DEPTH} levels", file=file, line=number)
        depth = max(depth, 0)


def _plain(node: Any, location: Path_, lines: dict[Path_, int], file: str, seen: set[int]) -> object:
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
    result: dict[str, object] = {}
    for key_node, child in node.value:
        at = key_node.start_mark.line + 1
        if type(key_node).__name__ != "ScalarNode":
            fail("a key must be a plain word", file=file, line=at)
        key = str(key_node.value)
        if not _clean(key):
            fail("a control character stands in this key", file=file, line=at, value=key)
        if key in result:
            fail("this key stands twice", file=file, line=at, key=key)
        lines[(*location, key)] = at
        result[key] = _plain(child, (*location, key), lines, file, seen)
    return result


def _scalar(node: Any, file: str, line: int) -> object:
    tag, text = str(node.tag), node.value
    kind = tag.rsplit(":", 1)[-1]
    if not tag.startswith("tag:yaml.org,2002:") or kind not in ("str", "int", "float", "bool", "null", "timestamp"):
        fail(f"the tag {tag!r} is not accepted", file=file, line=line, value=text)
    if kind == "int":
        digits = text.replace("_", "")
        try:
            number = int(digits, 0) if len(digits) < 400 else LONGEST_INTEGER + 1
        except ValueError:
            return text
        if abs(number) > LONGEST_INTEGER:
            fail("this whole number is too large", file=file, line=line, value=text, fix="At most 19 digits are read.")
        return number
    if kind == "float":
        try:
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            return text
    if kind == "bool":
        return text.lower() in ("true", "yes", "on")
    if not _clean(text):
        fail("a control character stands in this text", file=file, line=line, value=text)
    return None if kind == "null" else text


def _clean(text: str) -> bool:
    """Whether a text has no control characters but line breaks and tabs, and no halves of characters."""
    return text.isprintable() or _UNCLEAN.search(text) is None


def json_value(text: str) -> object:
    """JSON text as plain data; ValueError for what is none, and for what is nested too deeply."""
    try:
        found: object = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def read_json(path: Path | str) -> Document:
    """A JSON file as plain data (without line numbers for keys); refusals are TierformErrors with their line."""
    text = read_text(path)
    if text.count(",") > MAX_JSON_ENTRIES:
        fail(f"the file has more than {MAX_JSON_ENTRIES} entries", file=str(path))
    try:
        return Document(json.loads(text, object_pairs_hook=_no_repeats), str(path))
    except json.JSONDecodeError as error:
        fail(f"malformed JSON: {error.msg}", file=str(path), line=error.lineno)
    except RecursionError:
        fail("nested too deeply", file=str(path))
    except ValueError as error:
        fail(str(error).split(";")[0], file=str(path))


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice")
        result[key] = value
    return result


def _is_stream(path: Path) -> bool:
    """Whether what is written here is passed on and not kept as a file: ``-``, devices, pipes, open descriptors."""
    if str(path) == "-":
        return True
    shown = os.path.abspath(path)  # noqa: PTH100  (lexical: the links are followed one by one)
    for _ in range(40):
        if shown.startswith(_DESCRIPTORS):
            return True
        if not os.path.islink(shown):  # noqa: PTH114
            break
        shown = os.path.join(os.path.dirname(shown), os.readlink(shown))  # noqa: PTH115, PTH118, PTH120
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def check_output(path: Path | str) -> None:
    """TierformError when a file cannot be written here: asked before long work, and by :func:`atomic_path`."""
    target = Path(path)
    if "\0" in str(path) or not str(path):
        fail("this is no file name", value=str(path))
    if _is_stream(target):
        return
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        fail(f"cannot write here: {error.strerror or error}", file=str(target))
    if stat.S_ISDIR(mode):
        fail("this is a folder, a file is needed", file=str(target))
    if not stat.S_ISREG(mode):
        fail("cannot write here: neither a file, a pipe nor a character device", file=str(target))
    real = Path(os.path.realpath(target))
    if not real.parent.is_dir():
        no_folder(real.parent, str(target))
    if real.exists() and not os.access(real, os.W_OK):
        fail("cannot write here: the file is write-protected", file=str(target))
    if not os.access(real.parent, os.W_OK | os.X_OK):
        why = "Read-only file system" if os.statvfs(real.parent).f_flag & os.ST_RDONLY else "Permission denied"
        fail(f"cannot write here: {why}", file=str(target), fix="Name a folder that you may write.")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """The one way to write: a path whose content stands at `path` when the block ends well, and vanishes when not.

    A file is replaced whole, through links, and keeps its mode.  Devices, pipes and ``-`` (standard output) are given
    the whole content at the end.  TierformError when the folder is missing or nothing can be written there, also when
    the block meets a full disk; parts that a killed process left of the same target are removed.
    """
    target = Path(path)
    check_output(target)
    if _is_stream(target):
        with _message(target), tempfile.TemporaryDirectory(prefix="tierform-") as folder:
            temporary = Path(folder) / "content"
            temporary.touch()
            with _message(target, Path(folder)):
                yield temporary
            _pass_on(temporary, target)
        return
    real = Path(os.path.realpath(target))
    remove_stale(real)
    with _message(target, real.parent):
        handle, temporary = new_part(real)
        try:
            yield temporary
            with temporary.open("r+b") as written:
                os.fsync(written.fileno())
            if real.exists():
                temporary.chmod(stat.S_IMODE(real.stat().st_mode))
            temporary.replace(real)
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)


@contextmanager
def _message(target: Path, own: Path | None = None) -> Iterator[None]:
    """A full disk, a quota or read-only media as one message about the target; files outside `own` are others."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of standard output went away: no error of ours
    except OSError as error:
        if error.filename is not None and own is not None and Path(str(error.filename)).parent != own:
            fail(_reason(error), file=str(error.filename))  # of a file that the block reads
        fix = "Nothing was written; free some space or name another place." if error.errno in _FULL else None
        fail(f"cannot write here: {_reason(error)}", file=str(target), fix=fix)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _pass_on(content: Path, target: Path) -> None:
    with content.open("rb") as source:
        if str(target) in ("-", "/dev/stdout"):
            sys.stdout.flush()
            shutil.copyfileobj(source, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        with open(os.open(target, os.O_WRONLY | os.O_APPEND), "wb") as out:  # noqa: PTH123  (never created nor cut)
            shutil.copyfileobj(source, out)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process: TierformError when another process holds it."""
    with _message(folder):
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if lock(handle, wait=False) is False:
            fail("another process is writing into this folder", file=str(folder), fix="Wait for it, or name another.")
        yield
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    """Write a whole text file, or leave what was there."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, content: object) -> None:
    """Write JSON with a stable layout (equal content gives equal bytes); infinities and NaN become null."""
    write_text(path, json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def cache_folder(shelf: str) -> Path | None:
    """Where a room keeps what took long: the user's cache folder, or TIERFORM_CACHE; None when that is ``off``.

    None, too, where the user's home does not exist: it is not made.
    """
    chosen = os.environ.get("TIERFORM_CACHE", "")
    if chosen:
        return None if chosen.lower() in ("off", "0", "none", "no") else Path(chosen) / shelf
    if named := os.environ.get({"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")):
        return Path(named) / "tierform" / shelf
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if not home.is_dir():
        return None
    under = {"win32": ("AppData", "Local"), "darwin": ("Library", "Caches")}.get(sys.platform, (".cache",))
    return home.joinpath(*under, "tierform", shelf)


def _finite(content: object) -> object:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content


__all__ = [
    "Document",
    "atomic_path",
    "cache_folder",
    "check_output",
    "folder_lock",
    "make_folder",
    "parse_yaml",
    "read_json",
    "read_text",
    "read_yaml",
    "write_json",
    "write_text",
]
