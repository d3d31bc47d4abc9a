"""Files of the library as they were parsed before, kept in the user's cache folder.

Parsing a chip file takes several times as long as everything else that loading it takes.  What is kept is plain data
(JSON) beside a hash of the text that it came from, one file for each file of the library; another text, another
version of the reader, a folder that cannot be read or written, or anything that is not as it should be means that the
file is parsed.  Files of users are always parsed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

READER = 1  # of what reading makes of a text; another number, and everything is parsed anew
LIBRARY = Path(__file__).parent / "library"
Steps = tuple[str | int, ...]
Parsed = tuple[object, dict[Steps, int]]


def shelf_of(path: Path) -> str | None:
    """The name under which a file of the library is kept; None for every other file."""
    try:
        return "-".join(path.relative_to(LIBRARY).with_suffix("").parts) if path.suffix == ".yaml" else None
    except ValueError:
        return None


def kept(folder: Path | None, path: Path, text: str) -> Parsed | None:
    """Content and lines of a file's text that was parsed before."""
    name = shelf_of(path)
    if folder is None or name is None:
        return None
    try:
        found = json.loads((folder / f"{name}.json").read_bytes())
        if not isinstance(found, dict) or found.get("text") != _digest(text):
            return None
        return found["content"], {tuple(steps): int(line) for line, *steps in found["lines"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def keep(folder: Path | None, path: Path, text: str, parsed: Parsed) -> None:
    """Keep what the text of a file of the library was parsed to; nothing happens where that cannot be written."""
    name, (content, lines) = shelf_of(path), parsed
    if folder is None or name is None:
        return
    whole = {"text": _digest(text), "content": content, "lines": [[line, *steps] for steps, line in lines.items()]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = json.dumps(whole, ensure_ascii=False, allow_nan=False)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", delete=False, encoding="utf-8") as part:
            part.write(written)
        Path(part.name).replace(folder / f"{name}.json")
    except (OSError, ValueError):
        return


def _digest(text: str) -> str:
    return hashlib.sha256(f"{READER}\n{text}".encode()).hexdigest()
