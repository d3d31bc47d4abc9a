"""Many designs: spaces, strategies, a results base; places, links and routes of a network found by search."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.exploration.front import front_of, hypervolume, knee_of
    from tierform.exploration.link_search import search_links
    from tierform.exploration.network_search import NetworkDesign, NetworkProblem, search_places
    from tierform.exploration.placement import assign
    from tierform.exploration.space import Space
    from tierform.exploration.space_file import load_space
    from tierform.exploration.study import Study, explore, open_study

_HOME = {
    "NetworkDesign": "network_search",
    "NetworkProblem": "network_search",
    "Space": "space",
    "Study": "study",
    "assign": "placement",
    "explore": "study",
    "front_of": "front",
    "hypervolume": "front",
    "knee_of": "front",
    "load_space": "space_file",
    "open_study": "study",
    "search_links": "link_search",
    "search_places": "network_search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "NetworkDesign",
    "NetworkProblem",
    "Space",
    "Study",
    "assign",
    "explore",
    "front_of",
    "hypervolume",
    "knee_of",
    "load_space",
    "open_study",
    "search_links",
    "search_places",
]
