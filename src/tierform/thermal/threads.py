"""Dense linear algebra on one thread: the systems here are small, and waiting threads cost more than they gain.

On a busy machine a matrix product of a few hundred rows takes ten times the CPU time when it is shared out.  Where the
library threadpoolctl is installed, the block runs on one thread; where it is not, nothing changes but speed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=2)
def _controller(with_scipy: bool) -> Any:
    # scipy brings a second copy of the linear algebra, so the controller is made anew once it is there.
    del with_scipy
    try:
        return importlib.import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block's dense linear algebra on one thread."""
    controller = _controller("scipy.linalg" in sys.modules)
    if controller is None:
        yield
        return
    with controller.limit(limits=1, user_api="blas"):
        yield
