"""When: schedule, timeline, the Result."""

from tierform.simulation.result import Result
from tierform.simulation.simulate import simulate

__all__ = ["Result", "simulate"]
