"""The ledger: every engine against reference tools and measured silicon, with a stated tolerance at every point."""

from tierform.validation.ledger import ENGINES, Ledger, Point, Tolerance

__all__ = ["ENGINES", "Ledger", "Point", "Tolerance"]
