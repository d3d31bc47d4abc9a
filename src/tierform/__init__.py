"""Tierform: what a transformer costs on a chip, and what the chip does to the transformer."""

__version__ = "0.1.0"
