"""Which operator runs where, and where its weights sit."""

from tierform.mapping.plan import Mapping, WeightPlacement, assignment_key, load_mapping
from tierform.mapping.rule import completed, default_mapping

__all__ = ["Mapping", "WeightPlacement", "assignment_key", "completed", "default_mapping", "load_mapping"]
