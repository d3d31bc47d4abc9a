"""Reading BookSim2's configuration files, so that its users can bring what they have.

Keys follow BookSim2's manual (N. Jiang et al., ISPASS 2013); which ones act is in
:mod:`tierform.compat.booksim_keys`.  A key that is known but not modelled is accepted only at its default, and refused
otherwise; an unknown key is an error that names it.  A list in braces gives each class of packets its own value, the
last one holds for classes beyond it; a list in such a list is a mixture (``packet_size = {{1,5}}``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tierform.compat.booksim_keys import (
    BY_CLASS,
    DEFAULT_ONLY,
    HIGHEST,
    NO_INFLUENCE,
    REFUSED_ROUTINGS,
    ROUTINGS,
    SWITCHES,
    USED,
)
from tierform.compat.booksim_network import booksim_topology
from tierform.compat.booksim_text import LARGEST, MAX_BYTES, Reporter, balanced, numbers, parts_of, statements, value_of
from tierform.compat.booksim_traffic import injection_of, pattern_of
from tierform.errors import Problem, TierformError, nearest
from tierform.files import read_text
from tierform.network.case import Batches, Sampling, Thresholds, TrafficCase, TrafficClass
from tierform.network.cycle.modes import ALLOCATOR_NAMES, PRIORITY_NAMES
from tierform.network.parameters import RouterParameters
from tierform.network.routing import choose_routing
from tierform.network.topology import Topology


def read_config(path: Path | str, overrides: tuple[str, ...] = ()) -> TrafficCase:
    """Read a configuration file and ``key=value`` overrides; every mistake is reported at once."""
    settings, lines, problems = statements(read_text(path, MAX_BYTES), str(path))
    for number, override in enumerate(overrides, 1):
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            problems.append(Problem("an override is written key=value", "command line", number, value=override))
            continue
        settings[key.strip()] = value_of(value.strip().rstrip(";"))
        lines[key.strip()] = None
    problems += _unknown(settings, lines, str(path))
    if problems:
        raise TierformError(problems)
    return _case(settings, Reporter(str(path), lines), Path(path).parent)


def case_from_settings(settings: Mapping[str, object], topology: Topology | None = None) -> TrafficCase:
    """The case that these keys and values describe; `topology` stands in for an anynet's network file."""
    given = dict(settings)
    lines: dict[str, int | None] = dict.fromkeys(given)
    problems = _unknown(given, lines, "settings")
    if problems:
        raise TierformError(problems)
    return _case(given, Reporter("settings", lines), Path(), topology)


def _unknown(settings: dict[str, object], lines: dict[str, int | None], file: str) -> list[Problem]:
    known = [*USED, *DEFAULT_ONLY, *NO_INFLUENCE]
    problems: list[Problem] = []
    for key, value in settings.items():
        place = file if lines[key] is not None else "command line"
        if key not in known:
            near = nearest(key, known) if len(key) <= 64 and len(problems) < 20 else None
            problems.append(Problem("unknown key", place, lines[key], key, value, near))
        elif key in DEFAULT_ONLY and value != DEFAULT_ONLY[key]:
            fix = f"Only {key} = {DEFAULT_ONLY[key]!r} is modelled."
            problems.append(
                Problem(
                    what="this value is not supported",
                    file=place,
                    line=lines[key],
                    key=key,
                    value=value,
                    nearest=None,
                    fix=fix,
                )
            )
    return problems


def _case(given: dict[str, Any], report: Reporter, folder: Path, topology: Topology | None = None) -> TrafficCase:
    get = {**USED, **given}
    _check_values(get, report)
    _stop_at_problems(report)
    _check_names(get, report)
    _stop_at_problems(report)
    topology = topology or booksim_topology(get, report, folder)
    router = _router(get, report)
    classes = tuple(_class(_of_class(get, number), topology, report) for number in range(get["classes"]))
    _stop_at_problems(report)
    routing = choose_routing(topology, ROUTINGS[get["topology"]][get["routing_function"]])
    if get["topology"] == "torus" and get["routing_function"] == "min_adapt":
        # BookSim2 routes adaptively on one channel only.
        routing = replace(routing, adaptive_channels=(3, 3))
    batches = Batches(get["batch_size"], get["batch_count"], get["max_outstanding_requests"])
    return TrafficCase(
        topology=topology,
        routing=routing,
        router=router,
        classes=classes,
        sampling=Sampling(
            period=get["sample_period"],
            warmup_periods=get["warmup_periods"],
            max_periods=get["max_samples"],
            measure_latency=get["sim_type"] == "latency",
        ),
        seed=get["seed"],
        subnets=get["subnets"],
        batches=batches if get["sim_type"] == "batch" else None,
    )


def _stop_at_problems(report: Reporter) -> None:
    if report.problems:
        raise TierformError(report.problems)


def _check_values(get: dict[str, Any], report: Reporter) -> None:
    """Numbers are numbers, within bounds; lists stand where each class may have a value."""
    for key, default in USED.items():
        value = get[key]
        if isinstance(value, str) and not balanced(value):
            report.add(key, "braces or brackets are not closed in pairs", value)
            continue
        parts = parts_of(value)
        if key in BY_CLASS or not isinstance(value, str) or isinstance(default, str):
            pass
        elif value.startswith("{") and len(parts) == 1:
            get[key] = value = value_of(parts[0])
        if isinstance(default, str) or key in BY_CLASS:
            continue
        if isinstance(value, str):
            report.add(key, "a number is needed", value)
        elif isinstance(default, int) and not isinstance(value, int):
            report.add(key, "a whole number is needed", value)
        elif not abs(value) <= LARGEST:
            report.add(key, f"numbers up to {LARGEST} are read", value)
        elif key in HIGHEST and value > HIGHEST[key]:
            report.add(key, f"at most {HIGHEST[key]:,} is supported", value)
        elif key in SWITCHES and value not in (0, 1):
            report.add(key, "0 or 1 is needed", value)
    for key, least in (("classes", 1), ("subnets", 1), ("batch_size", 1), ("batch_count", 1), ("seed", 0)):
        if isinstance(get[key], int) and get[key] < least:
            report.add(key, f"must be at least {least}", get[key])


def _check_names(get: dict[str, object], report: Reporter) -> None:
    """Topology, routing, priority and kind of simulation are known ones."""
    name, function = get["topology"], get["routing_function"]
    if name not in ROUTINGS:
        report.add("topology", "unknown topology", name, ROUTINGS, f"Known: {', '.join(ROUTINGS)}.")
    elif function not in ROUTINGS[name]:
        known = ROUTINGS[name]
        why = REFUSED_ROUTINGS.get(str(function), f"unknown for a {name}")
        report.add("routing_function", why, function, known, f"Known: {', '.join(known)}.")
    for key, choices in (
        ("priority", PRIORITY_NAMES),
        ("sim_type", ("latency", "throughput", "batch")),
    ):
        if get[key] not in choices:
            report.add(key, "not supported", get[key], choices, f"Known: {', '.join(choices)}.")
    if get["sim_count"] != 1:
        report.add("sim_count", "one simulation at a time is supported", get["sim_count"])
    if get["sim_type"] == "batch" and get["classes"] != 1:
        report.add("classes", "a batch has one class of packets", get["classes"])


def _router(get: dict[str, Any], report: Reporter) -> RouterParameters:
    slots = get["vc_buf_size"] if get["buf_size"] <= 0 else max(get["buf_size"] // max(get["num_vcs"], 1), 1)
    names, rounds = {}, {get["alloc_iters"]}
    for key in ("vc_allocator", "sw_allocator", "spec_sw_allocator"):
        name, _, inner = str(get[key]).partition("(")
        known = ("prio", *ALLOCATOR_NAMES) if key == "spec_sw_allocator" else ALLOCATOR_NAMES
        names[key] = name
        if name not in known:
            report.add(key, "unknown allocator", get[key], known, f"Known: {', '.join(known)}.")
        inner = inner.rstrip(")")
        if name.startswith("separable"):
            if inner not in ("", "round_robin"):
                report.add(key, "only round-robin arbiters are modelled", get[key])
        elif inner:
            found = numbers(report, key, inner, int)
            rounds = {*(rounds - {1}), *found}
    if len(rounds) > 1:
        report.add("alloc_iters", "the allocators must iterate equally often", sorted(rounds))
    try:
        return RouterParameters(
            virtual_channels=get["num_vcs"],
            buffer_flits=slots,
            routing_delay=get["routing_delay"],
            vc_alloc_delay=get["vc_alloc_delay"],
            switch_alloc_delay=get["sw_alloc_delay"],
            crossbar_delay=get["st_prepare_delay"] + get["st_final_delay"],
            credit_delay=get["credit_delay"],
            input_speedup=get["input_speedup"],
            output_speedup=get["output_speedup"],
            switch_speedup=float(get["internal_speedup"]),
            vc_allocator=names["vc_allocator"],
            switch_allocator=names["sw_allocator"],
            alloc_iterations=max(rounds),
            wait_for_tail_credit=bool(get["wait_for_tail_credit"]),
            vc_busy_when_full=bool(get["vc_busy_when_full"]),
            priority=get["priority"],
            speculative=bool(get["speculative"]),
            speculative_allocator=names["spec_sw_allocator"],
            speculate_on_free_only=bool(get["spec_check_elig"]),
            speculate_on_room_only=bool(get["spec_check_cred"]),
            speculate_on_unasked_only=bool(get["spec_mask_by_reqs"]),
        )
    except TierformError as error:
        if not report.problems:
            raise TierformError([replace(problem, file=report.file) for problem in error.problems]) from None
        return RouterParameters()


def _of_class(get: dict[str, object], number: int) -> dict[str, Any]:
    """The settings as one class of packets has them: its part of each list, the last one where the list is shorter."""
    own = dict(get)
    for key in BY_CLASS:
        parts = parts_of(get[key]) if isinstance(get[key], str) else []
        if len(parts) > 0 and str(get[key]).startswith("{"):
            own[key] = value_of(parts[min(number, len(parts) - 1)])
    return own


def _class(get: dict[str, object], topology: Topology, report: Reporter) -> TrafficClass:
    """One class of packets from its own settings; problems are reported."""
    injection, traffic = injection_of(get, report), pattern_of(get, topology, report)
    limits = {}
    for name, key in (
        ("latency_cycles", "latency_thres"),
        ("warmup_change", "warmup_thres"),
        ("accepted_warmup_change", "acc_warmup_thres"),
        ("stopping_change", "stopping_thres"),
        ("accepted_stopping_change", "acc_stopping_thres"),
    ):
        limits[name] = (numbers(report, key, get[key]) or [0.0])[0]
    priority = (numbers(report, "class_priority", get["class_priority"], int) or [0])[0]
    measured = (numbers(report, "measure_stats", get["measure_stats"], int) or [1])[0]
    if injection is None or traffic is None:
        raise TierformError(report.problems)
    return TrafficClass(traffic, injection, priority, Thresholds(**limits), bool(measured))
