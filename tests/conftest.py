"""Shared by all tests: hypothesis without deadlines (shared machines), no user cache, deterministic terminal width."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

settings.register_profile("tierform", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("tierform")
os.environ.setdefault("COLUMNS", "120")


@pytest.fixture(autouse=True)
def _people_read_standard_output() -> None:
    """A test that gave standard output to a file named ``-`` took it from those after it in the same process."""
    output = sys.modules.get("tierform.cli.output")
    if output is not None:
        output.__dict__["_errors_only"] = False
        output.console.cache_clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, slow ones last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
