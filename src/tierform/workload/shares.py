"""Shares in the records of a task: numbers from 0 to 1."""

from __future__ import annotations

from tierform.errors import Problem


def share_problems(owner: object, *keys: str) -> list[Problem]:
    """Which of these fields of a record are no shares."""
    given = {key: getattr(owner, key) for key in keys}
    return [
        Problem("a share from 0 to 1 is needed", key=key, value=value)
        for key, value in given.items()
        if not 0 <= value <= 1
    ]
