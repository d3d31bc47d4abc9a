"""Readers of other tools' files: their users bring what they have."""
