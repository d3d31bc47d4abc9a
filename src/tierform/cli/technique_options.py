"""Options for inference techniques: drafts, cache policies, experts elsewhere, reduced models, and what they make."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tierform.errors import Problem, TierformError, nearest
from tierform.units import whole_number

F = TypeVar("F", bound=Callable[..., Any])

_TASK = [
    click.option("--inputs", help="Format of the inputs of products, made by a kernel (W8A8): int8-token, fp8."),
    click.option("--unpack-weights", help="Unpack narrow weights into this format with a kernel of its own: bf16."),
    click.option(
        "--draft",
        help="Decode with drafts: model:NAME, planes:9, skip:21-31, lookup, medusa, eagle, mtp, early-exit:24.",
    ),
    click.option("--draft-tokens", help="Tokens drafted in a step: a number or auto, the best.  [default: auto]"),
    click.option("--draft-tree", help="Branches at each depth of the tree of medusa or eagle: 4,2,1."),
    click.option("--draft-weights", help="Format of a draft model's weights.  [default: as the task's]"),
    click.option("--acceptance", help="0.8, or by position 0.9,0.8; or the file of `decode --json`.  [default: 0.8]"),
    click.option("--policy", help="What the KV cache keeps: window:1024+sinks:4, heavy:256, budget:512, block:16."),
    click.option("--offload-kv", type=float, help="Share of the KV cache in the memory behind the chip's own."),
    click.option("--experts-cached", type=float, help="Share of the experts in the chip's memory.  [default: 1]"),
    click.option("--experts-ahead", type=float, help="Share of the others that is foretold.  [default: 0]"),
    click.option("--routing", help="Popularity of each expert: numbers with commas, or a JSON file of them."),
]
_MODEL = [
    click.option("--skip", help="Sublayers or layers to leave out: attention:21-31,ffn:3 or layers:4-7."),
    click.option("--narrow", help="Shares that stay: heads=0.5,ffn=0.75."),
    click.option("--sparse", help="Zeros in the matrices of layers: 2:4, 0.3-csr or 0.3-bitmap."),
]
TASK_KEYS = (
    "inputs",
    "unpack_weights",
    "draft",
    "draft_tokens",
    "draft_tree",
    "draft_weights",
    "acceptance",
    "policy",
    "offload_kv",
    "experts_cached",
    "experts_ahead",
    "routing",
)


def technique_options(command: F) -> F:
    """Add the options of a task's techniques."""
    for option in reversed(_TASK):
        command = option(command)
    return command


def reduction_options(command: F) -> F:
    """Add the options that take parts away from the model."""
    for option in reversed(_MODEL):
        command = option(command)
    return command


# -- reduced models ----------------------------------------------------------------------------------------------
def read_reduction(given: dict[str, Any]) -> Any:
    """The Reduction that ``--skip``, ``--narrow`` and ``--sparse`` say; None without them."""
    from tierform.workload.reduced import Reduction

    problems: list[Problem] = []
    found: dict[str, Any] = {}
    kind = ""
    for part in _parts(given.pop("skip", None)):
        name, _, numbers = part.rpartition(":")
        kind = name or kind
        if kind not in ("attention", "ffn", "layers"):
            fix = "Write attention:21-31, ffn:3 or layers:4-7."
            near = nearest(kind or part, ("attention", "ffn", "layers"))
            problems.append(Problem("no such part of a layer", key="--skip", value=part, nearest=near, fix=fix))
            continue
        found[kind] = f"{found[kind]},{numbers}" if kind in found else numbers
    for part in _parts(given.pop("narrow", None)):
        name, _, share = part.partition("=")
        keys = {"heads": "heads", "ffn": "ffn_width"}
        number = _number(share)
        if name not in keys or number is None:
            problems.append(Problem("write heads=0.5 or ffn=0.75", key="--narrow", value=part))
        else:
            found[keys[name]] = number
    sparse = given.pop("sparse", None)
    if sparse:
        share, dash, form = str(sparse).partition("-")
        found |= {"sparse": share, **({"sparse_format": form} if dash else {})}
        if dash and form not in ("csr", "bitmap"):
            problems.append(Problem("a share is stored as csr or bitmap", key="--sparse", value=sparse))
    if problems:
        raise TierformError(problems)
    return Reduction(**found) if found else None


# -- a task's techniques -----------------------------------------------------------------------------------------
def read_techniques(given: dict[str, Any]) -> dict[str, Any]:
    """The fields `decoding`, `kv` and `experts` of an inference task; TierformError with every mistake."""
    problems: list[Problem] = []
    found: dict[str, Any] = {}
    for key, read in (("decoding", _decoding), ("kv", _policy), ("experts", _experts)):
        try:
            made = read(given)
        except TierformError as error:
            problems += error.problems
            continue
        if made is not None:
            found[key] = made
    if problems:
        raise TierformError(problems)
    return found


def _decoding(given: dict[str, Any]) -> Any:
    from tierform.workload.decoding import DRAFTS, Decoding

    text = given.get("draft")
    if not text:
        alone = [key for key in ("draft_tokens", "draft_tree", "draft_weights", "acceptance") if given.get(key)]
        if alone:
            raise TierformError(
                [Problem("has no meaning without --draft", key=f"--{key.replace('_', '-')}") for key in alone]
            )
        return None
    name, _, what = str(text).partition(":")
    record: dict[str, Any] = {"draft": name}
    problems: list[Problem] = []
    if name not in DRAFTS:
        fix = f"Known: {', '.join(DRAFTS)}."
        raise TierformError(
            [Problem("no such draft", key="--draft", value=name, nearest=nearest(name, DRAFTS), fix=fix)]
        )
    keys = {"model": "model", "planes": "planes", "skip": "skip", "early-exit": "exit_layer"}
    if name in keys:
        numbered = name in ("planes", "early-exit")
        if numbered and whole_number(what) is None:
            problems.append(Problem(f"write {name}:NUMBER", key="--draft", value=text))
        else:
            record[keys[name]] = int(what) if numbered else what
    elif what:
        problems.append(Problem(f"{name} takes nothing behind it", key="--draft", value=text))
    tokens = given.get("draft_tokens")
    if tokens and tokens != "auto":
        record["tokens"] = _whole(str(tokens), "--draft-tokens", problems)
    if given.get("draft_tree"):
        record["tree"] = tuple(_whole(part, "--draft-tree", problems) for part in _parts(given["draft_tree"]))
    if given.get("draft_weights"):
        record["weights"] = given["draft_weights"]
    if given.get("acceptance"):
        record["acceptance"] = _acceptance(str(given["acceptance"]), problems)
    if problems:
        raise TierformError(problems)
    return Decoding(**record)


def _acceptance(text: str, problems: list[Problem]) -> tuple[float, ...]:
    if text.endswith(".json"):
        from tierform.files import read_json

        content = read_json(Path(text)).content
        found = content.get("acceptance") if isinstance(content, dict) else content
        if isinstance(found, dict):
            found = found.get("counted")
        if not isinstance(found, list) or not all(isinstance(one, (int, float)) for one in found) or not found:
            problems.append(Problem("the file has no acceptance by position", key="--acceptance", value=text))
            return ()
        return tuple(float(one) for one in found)
    numbers = [_number(part) for part in _parts(text)]
    if None in numbers:
        problems.append(Problem("numbers from 0 to 1 are needed", key="--acceptance", value=text))
        return ()
    return tuple(float(one) for one in numbers if one is not None)


def _policy(given: dict[str, Any]) -> Any:
    from tierform.workload.kv_policy import KVPolicy

    made = read_policy(given["policy"]) if given.get("policy") else {}
    if given.get("offload_kv") is not None:
        made["offload"] = float(given["offload_kv"])
    return KVPolicy(**made) if made else None


def read_policy(text: str) -> dict[str, Any]:
    """``window:1024+sinks:4`` as keys; TierformError with everything that is none."""
    known = ("window", "sinks", "heavy", "budget", "block", "whole")
    problems: list[Problem] = []
    found: dict[str, Any] = {}
    for part in text.split("+"):
        match = re.fullmatch(r"\s*([a-z]+):([0-9]{1,15}|(?<=whole:)[0-9]{0,3}\.[0-9]{1,9})\s*", part)
        name = match[1] if match else part.partition(":")[0]
        if match is None or name not in known:
            fix = f"Write for example window:1024+sinks:4; known: {', '.join(known)}."
            near = nearest(name, known)
            problems.append(Problem("no such part of a policy", key="--policy", value=part, nearest=near, fix=fix))
            continue
        found[name] = float(match[2]) if name == "whole" else int(match[2])
        if name in ("window", "heavy", "budget") and not found[name]:
            fix = "Give at least 1 token, or leave it out."
            problems.append(Problem("this keeps no token", key="--policy", value=part, fix=fix))
    if problems:
        raise TierformError(problems)
    return found


def _experts(given: dict[str, Any]) -> Any:
    from tierform.workload.expert_store import ExpertStore

    record: dict[str, Any] = {}
    for key in ("cached", "ahead"):
        if given.get(f"experts_{key}") is not None:
            record[key] = float(given[f"experts_{key}"])
    text = given.get("routing")
    if text:
        if text.endswith(".json"):
            from tierform.files import read_json

            content = read_json(Path(text)).content
            numbers = content if isinstance(content, list) else []
        else:
            numbers = [_number(part) for part in _parts(text)]
        if not numbers or not all(isinstance(one, (int, float)) for one in numbers):
            raise TierformError([Problem("numbers are needed, one for each expert", key="--routing", value=text)])
        record["routing"] = tuple(float(one) for one in numbers)
    return ExpertStore(**record) if record else None


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(text: str, key: str, problems: list[Problem]) -> int:
    if (number := whole_number(text)) is not None:
        return number
    problems.append(Problem("a whole number is needed", key=key, value=text))
    return 1
