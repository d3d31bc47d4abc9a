"""Random traffic of one class for a network that a test runs by hand."""

from tierform.network import TrafficClass
from tierform.network.cycle.engine import random_traffic


def traffic_of(pattern, injection, memory, seed):
    """The arrays that the compiled loop takes."""
    return random_traffic((TrafficClass(pattern, injection),), memory, seed)
