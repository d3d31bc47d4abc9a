"""Changing a chip's description by the paths of its file: ``components.reram.adc_bits``, ``memory.0.count``.

The same rules hold for `set` in a file and for :meth:`tierform.chip.description.Chip.vary`: keys merge deeply, a list
and a constant (keys with ``value``) are replaced whole, and null takes a key away.  Entries of a list are named by
their ``name`` or counted from 0.  What is given is never changed: parts that stay are the same objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from tierform.errors import Problem, nearest
from tierform.provenance import Constant

Steps = tuple[str | int, ...]
_GONE = object()


def merged(base: Any, over: object, *, keep_null: bool = False) -> Any:
    """`over` laid over `base`; with `keep_null` a null stays, for a later base."""
    if not isinstance(over, dict):
        return over
    whole = not isinstance(base, dict) or "value" in over
    result = {} if whole else dict(base)
    for key, value in over.items():
        if value is None and not keep_null:
            result.pop(key, None)
        else:
            result[key] = merged(None if whole else base.get(key), value, keep_null=keep_null)
    return result


def equal(content: object, old: object) -> bool:
    """Whether two plain contents say the same: 1 is neither 1.0 nor true."""
    if content is old:
        return True
    if type(content) is not type(old):
        return False
    if isinstance(content, dict) and isinstance(old, dict):
        if content.keys() != old.keys():
            return False
        for key, value in content.items():  # noqa: SIM110 (a generator takes longer than what it looks at)
            if value is not old[key] and not equal(value, old[key]):
                return False
        return True
    if isinstance(content, list) and isinstance(old, list):
        return len(content) == len(old) and all(map(equal, content, old))
    return content == old


def with_checked(content: Any, old: Any, checked: object, known: set[int]) -> Any:
    """The content with all that says the same as in `old` in its `checked` form; `known` gets what was taken over."""
    if isinstance(checked, BaseModel):
        inner = {key: getattr(checked, key) for key in checked.model_fields_set}
    elif isinstance(checked, dict):
        inner = checked
    else:
        return content
    if not (isinstance(content, dict) and isinstance(old, dict)):
        return content
    found = {}
    for key, value in content.items():
        if key not in old or key not in inner:
            found[key] = value
        elif equal(value, old[key]):
            found[key] = inner[key]
            known.add(id(inner[key]))
        else:
            found[key] = with_checked(value, old[key], inner[key], known)
    return found


def nested(changes: Mapping[str, object]) -> dict[str, Any]:
    """`set` with its dotted keys (``parts.adc.energy``) as keys in keys; a null stays."""
    result: dict[str, Any] = {}
    for key, value in changes.items():
        for step in reversed(key.split(".")):
            value = {step: value}
        result = merged(result, value, keep_null=True)
    return result


def places_of(changes: Mapping[str, object]) -> dict[Steps, Steps]:
    """Every key that `set` gives, as steps in the component's file: where it stands below `set`."""
    found: dict[Steps, Steps] = {}

    def walk(value: object, steps: Steps, place: Steps) -> None:
        found[steps] = place
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, (*steps, key), (*place, key))

    for key, value in changes.items():
        steps = tuple(key.split("."))
        for end in range(1, len(steps)):
            found.setdefault(steps[:end], (key,))
        walk(value, steps, (key,))
    return found


def spot_of(steps: Steps, base: object, places: Mapping[Steps, Steps]) -> Steps | None:
    """Where below `set` a key of a component stands; None where the component's own file has it."""
    if steps in places:
        return places[steps]
    if _has(base, steps) or (len(steps) > 1 and _has(base, steps[:-1])) or not steps:
        return None
    for end in range(len(steps) - 1, 0, -1):
        if steps[:end] in places:
            return (*places[steps[:end]], *steps[end:])
    return None


def _has(content: object, steps: Steps) -> bool:
    for step in steps:
        if not isinstance(content, dict) or step not in content:
            return False
        content = content[step]
    return True


MOST_STEPS = 32  # of a path: no file is nearly so deep


def changed(content: dict[str, Any], changes: Mapping[str, object]) -> tuple[dict[str, Any], list[Problem]]:
    """The content of a chip file with values at paths changed, and every path that leads nowhere.

    Keys that the file does not have are added: whether they may stand there is the schema's business.
    """
    problems: list[Problem] = []
    for path, given in changes.items():
        steps = path.split(".") if isinstance(path, str) and path else []
        if len(steps) > MOST_STEPS:
            what = f"a path has at most {MOST_STEPS} keys"
            problems.append(Problem(what, key=f"{path[:40]}...", value=len(steps)))
            continue
        if not steps or not all(steps):
            problems.append(Problem("a path of keys is needed", value=path, fix="Write it as in network.width."))
            continue
        try:
            value = _plain(given)
            if steps[0] == "components":
                content = _with_component(content, steps, value)
            else:
                content = _put(content, steps, value, ())
        except _Wrong as error:
            what, shown, close, fix = error.args
            problems.append(Problem(what, key=path, value=shown, nearest=close, fix=fix))
    return content, problems


def with_router_width(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The content after a change of the network's width, with the width for which the router's constants hold."""
    old, new = before.get("network"), after.get("network")
    if not isinstance(old, dict) or not isinstance(new, dict) or old is new:
        return after
    holds = new.get("router_width", old.get("width"))
    network = {key: value for key, value in new.items() if key != "router_width"}
    if holds is not None and holds != new.get("width"):
        network["router_width"] = holds
    return after if network == new else {**after, "network": network}


class _Wrong(Exception):
    """Why a path or value cannot be: what, the value shown, the nearest name, the fix."""


def _with_component(content: dict[str, Any], steps: list[str], value: Any) -> dict[str, object]:
    """The content with a component changed: what is no key of its entry goes to its `set`."""
    entries = content.get("components", {})
    if len(steps) == 1:
        raise _Wrong("a component is changed by its name", None, None, f"Known here: {', '.join(entries)}.")
    name, inner = steps[1], steps[2:]
    if name not in entries and not (not inner and isinstance(value, dict) and "file" in value):
        raise _Wrong("no component of this name", name, nearest(name, entries), f"Known here: {', '.join(entries)}.")
    if not inner and value is None:
        return {**content, "components": {key: entry for key, entry in entries.items() if key != name}}
    if inner and inner[0] not in ("file", "set"):
        inner = ["set", *inner]
    for step in reversed(inner):
        value = {step: value}
    if not isinstance(value, dict):
        raise _Wrong("keys with values are needed here", value, None, None)
    entry = dict(entries.get(name, {}))
    for key, item in value.items():
        if key == "set" and isinstance(item, dict):
            entry["set"] = merged(nested(entry.get("set", {})), nested(item), keep_null=True)
        elif item is None:
            entry.pop(key, None)
        else:
            entry[key] = item
    return {**content, "components": {**entries, name: entry}}


def _put(node: object, steps: Sequence[str], value: object, at: Steps) -> Any:
    """`node` with the value at `steps` below it."""
    if not steps:
        return _GONE if value is None else merged(node, value)
    step, rest = steps[0], steps[1:]
    if isinstance(node, list):
        index = _index(node, step)
        items = list(node)
        made = _put(node[index] if index < len(node) else None, rest, value, (*at, index))
        items[index : index + 1] = [] if made is _GONE else [made]
        return items
    if node is not None and not isinstance(node, dict):
        above = ".".join(map(str, at))
        raise _Wrong(f"{above} is one value and has no keys", node, None, f"Give {above} as a whole.")
    result = dict(node or {})
    made = _put(result.get(step), rest, value, (*at, step))
    if made is _GONE:
        result.pop(step, None)
    else:
        result[step] = made
    return result


def _index(items: list[object], step: str) -> int:
    """The place of the entry with this name or number; one past the end adds an entry."""
    names = [str(item["name"]) for item in items if isinstance(item, dict) and "name" in item]
    if step in names:
        return next(i for i, item in enumerate(items) if isinstance(item, dict) and str(item.get("name")) == step)
    if step.isascii() and step.isdigit() and int(step[:9]) <= len(items):
        return int(step[:9])
    known = names or [str(index) for index in range(len(items))]
    raise _Wrong("no entry of this name or number", step, nearest(step, known), f"Known here: {', '.join(known)}.")


def _plain(value: object) -> object:
    """A value as a file holds it."""
    if isinstance(value, Constant):
        evidence = {"kind": value.kind, "source": value.source, "note": value.note}
        return {
            "value": f"{value.value!r} {value.unit}".strip(),
            **{key: text for key, text in evidence.items() if text},
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise _Wrong("a text, a number, a list or keys with values are needed", type(value).__name__, None, None)
