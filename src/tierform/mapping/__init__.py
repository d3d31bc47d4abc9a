"""Which operator runs where, and where its weights sit."""

from tierform.mapping.plan import Mapping, WeightPlacement, assignment_key, load_mapping
from tierform.mapping.rule import assign, completed, default_mapping

__all__ = ["Mapping", "WeightPlacement", "assign", "assignment_key", "completed", "default_mapping", "load_mapping"]
