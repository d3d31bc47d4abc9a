"""What the prompts of a recorded run say: token ids, or which of them begin alike.

A prefix cache compares prompts, so a run with one is replayed well only where their content is known.  Token ids stand
in a column ``token_ids`` or in ``NAME.tokens.jsonl``, a list a line.  Columns ``same_as`` and ``same_tokens`` say as
much for a cache in less room: the first so many tokens of a prompt are those of an earlier request.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tierform.errors import fail
from tierform.files import read_text
from tierform.serving.requests import TokenIds

_MOST_BYTES = 2**28
Row = dict[str, str]


def prompts_of(root: Path, name: str, rows: list[Row], path: Path) -> TokenIds | None:
    """What the folder says of the prompts of these rows of `path`, or None."""
    if "same_as" in rows[0]:
        return _begun_alike(rows, path)
    return _token_ids(root, name, rows, path)


def _token_ids(root: Path, name: str, rows: list[Row], path: Path) -> TokenIds | None:
    """Token ids of prompts (and answers): a column ``token_ids``, or ``NAME.tokens.jsonl`` with a list a line."""
    beside = root / f"{name}.tokens.jsonl"
    try:
        if "token_ids" in rows[0]:
            lists = [[int(one) for one in row["token_ids"].split()] for row in rows]
        elif beside.is_file():
            path = beside
            read = [json.loads(line) for line in read_text(beside, _MOST_BYTES).splitlines() if line.strip()]
            lists = [[int(one) for one in (line["token_ids"] if isinstance(line, dict) else line)] for line in read]
        else:
            return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fail(f"lists of token ids are needed: {error}", file=str(path), key="token_ids")
    if len(lists) != len(rows):
        fail(f"{len(rows)} lists are needed, one a request", file=str(path), value=len(lists))
    at = np.concatenate(([0], np.cumsum([len(one) for one in lists]))).astype(np.int64)
    return TokenIds(at, np.array([token for one in lists for token in one], np.int64))


def _begun_alike(rows: list[Row], path: Path) -> TokenIds:
    """Numbers for tokens that are equal where the columns say that two prompts begin alike."""
    place = {row.get("request", str(number)): number for number, row in enumerate(rows)}
    at = np.concatenate(([0], np.cumsum([int(row["prompt_tokens"]) for row in rows]))).astype(np.int64)
    ids = np.arange(at[-1])
    for number, row in enumerate(rows):
        if not row["same_as"]:
            continue
        other = place.get(row["same_as"], number)
        tokens = int(row["same_tokens"]) if (row["same_tokens"] or "").isdigit() else -1
        if other >= number:
            fail("an earlier request is needed", file=str(path), line=number + 2, key="same_as", value=row["same_as"])
        if not 0 <= tokens <= min(at[number + 1] - at[number], at[other + 1] - at[other]):
            what = "at most the tokens of either prompt are the same"
            fail(what, file=str(path), line=number + 2, key="same_tokens", value=row["same_tokens"])
        ids[at[number] : at[number] + tokens] = ids[at[other] : at[other] + tokens]
    return TokenIds(at, ids)


__all__ = ["prompts_of"]
