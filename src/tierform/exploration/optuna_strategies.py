"""Optuna's samplers as strategies: the history is told to a new study each time, and points asked from it.

Violations are told as constraints, so that infeasible points teach what lies beyond a limit.  A point that is known
already is not asked for again: its place is taken by a Sobol point after some tries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tierform.errors import MissingDependency
from tierform.exploration.space import Values
from tierform.exploration.strategies import History, sobol, unknown

TRIES = 20


def _asked(history: History, number: int, seed: int, name: str) -> list[Values]:
    try:
        import optuna
    except ImportError:
        raise MissingDependency("optuna", f"the strategy {name!r}", "explore") from None
    start = max(8, 2 * len(history.space.parameters) + 2)
    if len(history) < start:
        return sobol(history, min(number, start - len(history)), seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = unknown(history, _points(optuna, history, number, seed, name), number)
    if len(made) < number:
        made += [values for values in sobol(history, number, seed) if values not in made][: number - len(made)]
    return made


def _points(optuna: Any, history: History, number: int, seed: int, name: str) -> Iterator[Values]:
    draw = int(np.random.default_rng([seed, len(history)]).integers(2**31))

    def told(trial: Any) -> list[float]:
        return list(trial.user_attrs["violation"])

    samplers = {
        "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=20, seed=draw, constraints_func=told),
        "nsga3": lambda: optuna.samplers.NSGAIIISampler(population_size=20, seed=draw, constraints_func=told),
        "tpe": lambda: optuna.samplers.TPESampler(
            seed=draw, multivariate=True, constraints_func=told, n_startup_trials=0
        ),
    }
    space = history.space
    study = optuna.create_study(directions=["minimize"] * history.objectives.shape[1], sampler=samplers[name]())
    ranges = {parameter.name: optuna.distributions.FloatDistribution(0.0, 1.0) for parameter in space.parameters}
    finite = history.objectives[np.isfinite(history.objectives).all(axis=1)]
    worst = finite.max(axis=0) if len(finite) else np.ones(history.objectives.shape[1])
    for index in range(len(history)):
        values = history.objectives[index]
        violation = float(history.violation[index])
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(ranges, history.positions[index].tolist(), strict=True)),
                distributions=ranges,
                values=np.where(np.isfinite(values), values, worst).tolist(),
                user_attrs={"violation": [violation]},
                system_attrs={
                    "constraints": [violation],
                    "nsga2:generation": index // 20,
                    "nsga3:generation": index // 20,
                },
            )
        )
    for _ in range(number * TRIES):
        trial = study.ask(ranges)
        yield space.point([trial.params[parameter.name] for parameter in space.parameters])


def nsga2(history: History, number: int, seed: int) -> list[Values]:
    """NSGA-II (Deb et al. 2002) of Optuna."""
    return _asked(history, number, seed, "nsga2")


def nsga3(history: History, number: int, seed: int) -> list[Values]:
    """NSGA-III (Deb and Jain 2014) of Optuna."""
    return _asked(history, number, seed, "nsga3")


def tpe(history: History, number: int, seed: int) -> list[Values]:
    """The tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna, multivariate."""
    return _asked(history, number, seed, "tpe")
