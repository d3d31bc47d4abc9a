"""Errors that people cause, said so that people can mend them.

One exception class carries any number of :class:`Problem` records, so that everything wrong with a file or a command
is reported at once.  The command line prints them and exits with code 2; the API raises them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

EXIT_USER_ERROR = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what, where, the value found, the nearest valid choice and the fix."""

    what: str
    file: str | None = None
    line: int | None = None
    key: str | None = None
    value: object = None
    nearest: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        place = printable(self.file or "")
        if self.line is not None:
            place = f"{place}:{self.line}" if place else f"line {self.line}"
        what = printable(self.what)
        subject = f"{printable(self.key)}: " if self.key else ""
        text = f"{place}: {subject}{what}" if place else f"{subject}{what}"
        if self.value is not None:
            text += f" (found {_shown(self.value)})"
        hints = []
        if self.nearest is not None:
            hints.append(f"did you mean {self.nearest!r}?")
        if self.fix:
            hints.append(printable(self.fix))
        return text + ("\n    " + " ".join(hints) if hints else "")


class TierformError(Exception):
    """A mistake in a file, a name or a value that the user can mend; carries every problem found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


# Which extra of the package brings an optional library, by the name under which it is imported.
EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "peft", "accelerate", "sklearn", "datasets"), "train"),
    **dict.fromkeys(("zstandard", "safetensors"), "store"),
    **dict.fromkeys(("jinja2", "plotly", "pandas"), "report"),
    **dict.fromkeys(("optuna", "joblib"), "explore"),
    **dict.fromkeys(("starlette", "uvicorn"), "studio"),
    "pyamg": "thermal",
    "ray": "cluster",
}


class MissingDependency(TierformError):
    """An optional library is needed and not installed."""

    def __init__(self, library: str, needed_for: str, extra: str) -> None:
        super().__init__(
            [
                Problem(
                    f"{needed_for} needs the library {library!r}, which is not installed",
                    fix=f"Install it with: pip install 'tierform[{extra}]'",
                )
            ]
        )


def missing(error: ImportError, needed_for: str = "this") -> MissingDependency | None:
    """What to say of a failed import of an optional library; None for any other import."""
    library = (error.name or "").partition(".")[0]
    return MissingDependency(library, needed_for, EXTRAS[library]) if library in EXTRAS else None


def fail(
    what: str,
    *,
    file: str | None = None,
    line: int | None = None,
    key: str | None = None,
    value: object = None,
    choices: Iterable[str] = (),
    fix: str | None = None,
) -> NoReturn:
    """Raise a :class:`TierformError` with one problem; `choices` gives the nearest valid name."""
    close = nearest(str(value), choices) if value is not None else None
    raise TierformError([Problem(what=what, file=file, line=line, key=key, value=value, nearest=close, fix=fix)])


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or what it is called where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None when nothing is close."""
    valid = list(choices)
    folded = {choice.lower(): choice for choice in valid}
    found = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.5)
    return folded[found[0]] if found else None


def printable(text: str) -> str:
    """The text with every control character written out, so that a terminal shows it and obeys none of it.

    Line breaks and tabs stay.  Colours, cursor movements, changes of reading direction and halves of characters from a
    file become the codes of their characters.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)


def note(text: str) -> None:
    """Tell something that is no error and no result: the logger ``tierform``, by default on standard error."""
    import logging

    logging.getLogger("tierform").warning("note: %s", printable(text))


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = f"a {type(value).__name__} too long to write"
    return text if len(text) <= 80 else text[:77] + "..."
