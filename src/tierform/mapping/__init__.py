"""Which operator runs where, and where its weights sit."""

from tierform.mapping.plan import Mapping, WeightPlacement, load_mapping, stage_key
from tierform.mapping.rule import default_mapping

__all__ = ["Mapping", "WeightPlacement", "default_mapping", "load_mapping", "stage_key"]
