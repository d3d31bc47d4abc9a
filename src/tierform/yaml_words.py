"""What a plain word of a YAML file is: a number, a truth value, null, a date or text, as YAML 1.2 has it.

The rules are ruamel.yaml's own.  It looks them up anew for each word of a file, which takes longer than all the rest of
reading; here the table is made once for the process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ruamel.yaml import YAML
    from ruamel.yaml.resolver import VersionedResolver


def plain_reader() -> YAML:
    """A reader of plain data: no tags of Python's, words as above."""
    from ruamel.yaml import YAML

    reader = YAML(typ="safe")
    reader.Resolver = _resolver()
    return reader


@lru_cache(maxsize=1)
def _resolver() -> type[VersionedResolver]:
    from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
    from ruamel.yaml.resolver import VersionedResolver, implicit_resolvers
    from ruamel.yaml.tag import Tag

    rules: dict[str, list[tuple[Tag, Callable[[str], object]]]] = {}
    for versions, tag, form, firsts in implicit_resolvers:
        for first in firsts if (1, 2) in versions else ():
            rules.setdefault(first, []).append((Tag(suffix=tag), form.match))
    otherwise: dict[type, Tag] = {
        ScalarNode: VersionedResolver.DEFAULT_SCALAR_TAG,
        SequenceNode: VersionedResolver.DEFAULT_SEQUENCE_TAG,
        MappingNode: VersionedResolver.DEFAULT_MAPPING_TAG,
    }

    class PlainWords(VersionedResolver):
        def resolve(self, kind: type[Node], value: str, implicit: tuple[bool, bool]) -> Tag:
            if kind is ScalarNode and implicit[0]:
                for tag, matches in rules.get(value[:1], ()):
                    if matches(value):
                        return tag
            return otherwise[kind]

    return PlainWords
