"""A Result as a small card for notebooks: the same answer as on the terminal."""

from __future__ import annotations

from tierform.card import card
from tierform.report.answer import answer, task_line
from tierform.simulation.result import Result

_MOST_NOTES = 3


def result_card(result: Result) -> str:
    """The card as HTML."""
    found = answer(result)
    notes = [f"{label}: {text}" for label, text in found.shares]
    assumed = sum(line.kind == "assumed" for line in result.assumptions)
    notes.append(f"{assumed} of {len(result.assumptions)} constants are assumed: to_dataframe('assumption').")
    notes += result.notes[:_MOST_NOTES]
    if len(result.notes) > _MOST_NOTES:
        notes.append(f"{len(result.notes) - _MOST_NOTES} more notes: .notes")
    return card(
        f"{result.model} on {result.chip}",
        task_line(result.task),
        found.figures,
        [(found.stages.head, found.stages.rows)],
        notes,
    )
