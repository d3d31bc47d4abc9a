"""The ledger: every engine against reference tools and measured silicon, with a stated tolerance at every point."""

from tierform.validation.ledger import ENGINES, EngineLedger, Point, Tolerance

__all__ = ["ENGINES", "EngineLedger", "Point", "Tolerance"]
