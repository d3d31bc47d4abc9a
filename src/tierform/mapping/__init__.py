"""Which operator runs where, and where its weights sit."""

from tierform.mapping.mapping_file import load_mapping
from tierform.mapping.plan import Mapping, WeightPlacement, assignment_key
from tierform.mapping.rule import assign, completed, default_mapping, weights_left_open

__all__ = [
    "Mapping",
    "WeightPlacement",
    "assign",
    "assignment_key",
    "completed",
    "default_mapping",
    "load_mapping",
    "weights_left_open",
]
