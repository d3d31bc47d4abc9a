"""Real training that switches itself from full-parameter to low-rank mode; names load when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.tuning.applications import APPLICATIONS, Application, build
    from tierform.tuning.callback import SwitchCallback
    from tierform.tuning.config import load_config
    from tierform.tuning.lowrank import LowRank, merged
    from tierform.tuning.rule import Decision, FixedStep, HpTRule, IntrinsicDimension, LossPlateau, SwitchRule, Window
    from tierform.tuning.run import run
    from tierform.tuning.side import optimizer
    from tierform.tuning.trainer import HybridTrainer

_HOME = {
    "APPLICATIONS": "applications",
    "Application": "applications",
    "build": "applications",
    "SwitchCallback": "callback",
    "load_config": "config",
    "LowRank": "lowrank",
    "merged": "lowrank",
    "Decision": "rule",
    "FixedStep": "rule",
    "HpTRule": "rule",
    "IntrinsicDimension": "rule",
    "LossPlateau": "rule",
    "SwitchRule": "rule",
    "Window": "rule",
    "run": "run",
    "HybridTrainer": "trainer",
    "optimizer": "side",
}

__all__ = [
    "APPLICATIONS",
    "Application",
    "Decision",
    "FixedStep",
    "HpTRule",
    "HybridTrainer",
    "IntrinsicDimension",
    "LossPlateau",
    "LowRank",
    "SwitchCallback",
    "SwitchRule",
    "Window",
    "build",
    "load_config",
    "merged",
    "optimizer",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"tierform.tuning.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tierform.tuning' has no attribute {name!r}")
