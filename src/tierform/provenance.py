"""Where each number comes from: every constant carries its value, unit, source and kind.

Kinds, from the strongest evidence to the weakest: ``measured`` on silicon, ``datasheet``, ``published`` in a paper or
in another tool's configuration, ``fitted`` here on cited data, ``assumed`` where no source was found.  A report prints
the assumed ones by name, and using any constant registers its citation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["measured", "datasheet", "published", "fitted", "assumed"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Constant:
    """A number with its evidence.  `value` is in `unit`; `source` is a key of the library's ``sources.yaml``."""

    value: float
    unit: str
    kind: Kind
    source: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Assumption:
    """One line of a report's list: what was used, its value, and on what evidence."""

    subject: str
    value: str
    kind: Kind
    source: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Citation:
    """A source in full, as the library's ``sources.yaml`` gives it."""

    key: str
    text: str
    url: str = ""


def assumptions_first(entries: Iterable[Assumption]) -> list[Assumption]:
    """The entries without repetition, weakest evidence first, then by subject."""
    order = {kind: rank for rank, kind in enumerate(reversed(KINDS))}
    return sorted(dict.fromkeys(entries), key=lambda entry: (order[entry.kind], entry.subject))
