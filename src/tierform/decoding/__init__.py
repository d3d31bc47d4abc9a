"""Real decoding: drafts and their exact verification, cache policies, and what they gain, predicted and measured.

Names are imported when first used, so that ``import tierform.decoding`` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.decoding.drafts import ModelDraft as ModelDraft
    from tierform.decoding.drafts import read_draft as read_draft
    from tierform.decoding.jobs import DecodeJob as DecodeJob
    from tierform.decoding.jobs import run_decode as run_decode
    from tierform.decoding.loop import Sampling as Sampling
    from tierform.decoding.loop import generate as generate
    from tierform.decoding.policies import perplexities as perplexities

_HOME = {
    "ModelDraft": "drafts",
    "read_draft": "drafts",
    "DecodeJob": "jobs",
    "run_decode": "jobs",
    "Sampling": "loop",
    "generate": "loop",
    "perplexities": "policies",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"tierform.decoding.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
