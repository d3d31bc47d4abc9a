"""Which evaluator a space asks for."""

from __future__ import annotations

from tierform.exploration.accuracy_space import AccuracyEvaluator
from tierform.exploration.evaluator import Evaluator, JobEvaluator
from tierform.exploration.service_space import ServiceEvaluator
from tierform.exploration.space import Space


def evaluator_of(space: Space) -> Evaluator:
    """What evaluates the points of a space: services or answers where it has them, else jobs alone."""
    if space.service:
        return ServiceEvaluator(space)
    return AccuracyEvaluator(space) if space.accuracy else JobEvaluator(space)


__all__ = ["evaluator_of"]
