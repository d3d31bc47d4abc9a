"""The pages with their content as one file: it opens offline and asks for nothing.

The content is deflated JSON in base64, so no name in it, however hostile, can be taken for a tag.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from tierform.errors import fail
from tierform.files import write_text
from tierform.simulation.result import Result
from tierform.studio.content import Opened, opened_results, pages
from tierform.studio.runs import Content

# Scripts in the order in which they stand in the file.
SCRIPTS = ("series.js", "stack.js", "pages.js", "more.js")
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; font-src data:; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def asset(name: str) -> bytes:
    """A file of the built pages; TierformError where they are not built."""
    try:
        return (files("tierform.studio") / "static" / name).read_bytes()
    except FileNotFoundError:
        fail("the pages are not built", fix="Run `make studio`, or install the wheel.")


def write(path: Path | str, results: Sequence[Result]) -> None:
    """Write the pages of results as one file."""
    write_text(path, page_of(pages(opened_results(results), exported=True)))


def write_opened(path: Path | str, opened: Opened) -> None:
    """Write the pages of opened files as one file."""
    write_text(path, page_of(pages(opened, exported=True)))


def page_of(content: Content) -> str:
    """The one file as text."""
    font = base64.b64encode(asset("inter.woff2")).decode("ascii")
    style = asset("pages.css").decode().replace("inter.woff2", f"data:font/woff2;base64,{font}")
    packed = base64.b64encode(zlib.compress(json.dumps(_plain(content), separators=(",", ":")).encode(), 9)).decode()
    scripts = "".join(f"<script>{_script(asset(name).decode())}</script>\n" for name in SCRIPTS)
    text = asset("page.html").decode()
    for old, new in (
        (
            '<meta charset="utf-8">',
            f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        ),
        ('<link rel="stylesheet" href="pages.css">', f"<style>{style}</style>"),
        (
            '<script src="pages.js" defer></script>',
            f'<script type="text/plain" id="content">{packed}</script>\n{scripts}',
        ),
    ):
        before, found, after = text.partition(old)
        if not found:
            fail("the built pages are of another version", fix="Run `make studio`.")
        text = before + new + after
    return text


def _script(text: str) -> str:
    """A script that may stand in a page: it must not close its own tag or open a comment."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _plain(value: object) -> object:
    """Numbers that JSON lacks become null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
