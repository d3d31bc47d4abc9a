"""Reading BookSim2's configuration files, so that its users can bring what they have.

Grammar: ``key = value;`` with ``//`` comments; values are numbers, words, or lists in braces.  Keys follow BookSim2's
manual (N. Jiang et al., ISPASS 2013).  A key that this reader knows but the engine does not model is accepted only at
its default, and refused otherwise; a key it does not know is an error that names it.  Topologies: mesh, torus, cmesh
and anynet with its network file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tierform.compat.booksim_network import read_network_file
from tierform.errors import Problem, TierformError, nearest
from tierform.files import read_text
from tierform.network.case import Injection, Sampling, TrafficCase
from tierform.network.parameters import RouterParameters
from tierform.network.routing import choose_routing
from tierform.network.topologies import cmesh, mesh, torus
from tierform.network.topology import Topology
from tierform.network.traffic import Pattern, pattern

# Keys with their defaults in BookSim2.  The first group drives the engine; the second is accepted at its default only;
# the third has no influence on what is modelled here.
_USED: dict[str, Any] = {
    "topology": "torus",
    "k": 8,
    "n": 2,
    "c": 1,
    "x": 8,
    "y": 8,
    "xr": 1,
    "yr": 1,
    "routing_function": "none",
    "network_file": "",
    "use_noc_latency": 1,
    "num_vcs": 16,
    "vc_buf_size": 8,
    "buf_size": -1,
    "wait_for_tail_credit": 0,
    "vc_busy_when_full": 0,
    "vc_allocator": "islip",
    "sw_allocator": "islip",
    "alloc_iters": 1,
    "credit_delay": 0,
    "routing_delay": 1,
    "vc_alloc_delay": 1,
    "sw_alloc_delay": 1,
    "st_prepare_delay": 0,
    "st_final_delay": 1,
    "input_speedup": 1,
    "output_speedup": 1,
    "internal_speedup": 1.0,
    "traffic": "uniform",
    "perm_seed": 0,
    "packet_size": 1,
    "packet_size_rate": 1,
    "injection_rate": 0.1,
    "injection_rate_uses_flits": 0,
    "injection_process": "bernoulli",
    "burst_alpha": 0.5,
    "burst_beta": 0.5,
    "burst_r1": -1.0,
    "sim_type": "latency",
    "warmup_periods": 3,
    "sample_period": 1000,
    "max_samples": 10,
    "latency_thres": 500.0,
    "warmup_thres": 0.05,
    "acc_warmup_thres": 0.05,
    "stopping_thres": 0.05,
    "acc_stopping_thres": 0.05,
    "sim_count": 1,
    "seed": 0,
}
_DEFAULT_ONLY: dict[str, Any] = {
    "channel_file": "",
    "subnets": 1,
    "link_failures": 0,
    "router": "iq",
    "output_delay": 0,
    "output_buffer_size": -1,
    "noq": 0,
    "speculative": 0,
    "buffer_policy": "private",
    "vc_prioritize_empty": 0,
    "vc_priority_donation": 0,
    "vc_shuffle_requests": 0,
    "hold_switch_for_packet": 0,
    "vct": 0,
    "arb_type": "round_robin",
    "classes": 1,
    "priority": "none",
    "use_read_write": 0,
    "include_queuing": 1,
    "measure_stats": 1,
    "sim_power": 0,
}
_NO_INFLUENCE = {
    "fail_seed",
    "in_ports",
    "out_ports",
    "spec_check_elig",
    "spec_check_cred",
    "spec_mask_by_reqs",
    "spec_sw_allocator",
    "private_bufs",
    "private_buf_size",
    "private_buf_start_vc",
    "private_buf_end_vc",
    "max_held_slots",
    "feedback_aging_scale",
    "feedback_offset",
    "class_priority",
    "batch_size",
    "batch_count",
    "max_outstanding_requests",
    "write_fraction",
    "read_request_begin_vc",
    "read_request_end_vc",
    "write_request_begin_vc",
    "write_request_end_vc",
    "read_reply_begin_vc",
    "read_reply_end_vc",
    "write_reply_begin_vc",
    "write_reply_end_vc",
    "read_request_subnet",
    "read_reply_subnet",
    "write_request_subnet",
    "write_reply_subnet",
    "read_request_size",
    "write_request_size",
    "read_reply_size",
    "write_reply_size",
    "pair_stats",
    "print_activity",
    "print_csv_results",
    "deadlock_warn_timeout",
    "viewer_trace",
    "watch_file",
    "watch_flits",
    "watch_packets",
    "watch_transactions",
    "watch_out",
    "stats_out",
    "injected_flits_out",
    "received_flits_out",
    "stored_flits_out",
    "sent_flits_out",
    "outstanding_credits_out",
    "ejected_flits_out",
    "active_packets_out",
    "used_credits_out",
    "free_credits_out",
    "max_credits_out",
    "sent_packets_out",
    "power_output_file",
    "tech_file",
    "channel_width",
    "channel_sweep",
}
_ROUTINGS = {
    "mesh": {
        "dor": "dimension_order",
        "dim_order": "dimension_order",
        "xy_yx": "xy_yx",
        "valiant": "valiant",
        "adaptive_xy_yx": "adaptive_xy_yx",
        "min_adapt": "minimal_adaptive",
    },
    "torus": {"dim_order": "dimension_order", "dim_order_bal": "dimension_order", "valiant": "valiant"},
    "cmesh": {"dor_no_express": "dimension_order", "xy_yx_no_express": "xy_yx"},
    "anynet": {"min": "first_settled"},
}
_TRAFFIC = {
    "uniform": "uniform",
    "transpose": "transpose",
    "bitcomp": "bit_complement",
    "bitrev": "bit_reverse",
    "shuffle": "shuffle",
    "tornado": "tornado",
    "neighbor": "neighbor",
    "randperm": "random_permutation",
    "hotspot": "hotspot",
    "background": "background",
    "diagonal": "diagonal",
    "asymmetric": "asymmetric",
}
_ALLOCATORS = {
    "islip": "islip",
    "separable_input_first": "separable_input_first",
    "separable_output_first": "separable_output_first",
}
_ENTRY = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*((?:[^;{}]|\{[^;]*\})*?)\s*;")


def read_config(path: Path | str, overrides: tuple[str, ...] = ()) -> TrafficCase:
    """Read a configuration file and ``key=value`` overrides; every mistake is reported at once."""
    text = read_text(path)
    settings, lines, problems = _entries(text, str(path))
    for number, override in enumerate(overrides, 1):
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            problems.append(Problem("an override is written key=value", "command line", number, value=override))
            continue
        settings[key.strip()] = _value(value.strip().rstrip(";"))
        lines[key.strip()] = None
    problems += _unknown(settings, lines, str(path))
    if problems:
        raise TierformError(problems)
    return _case(settings, _Reporter(str(path), lines), Path(path).parent)


def case_from_settings(settings: Mapping[str, Any], topology: Topology | None = None) -> TrafficCase:
    """The case that these keys and values describe; `topology` stands in for an anynet's network file."""
    given = dict(settings)
    lines: dict[str, int | None] = dict.fromkeys(given)
    problems = _unknown(given, lines, "settings")
    if problems:
        raise TierformError(problems)
    return _case(given, _Reporter("settings", lines), Path(), topology)


class _Reporter:
    """Collects problems with their places."""

    def __init__(self, file: str, lines: dict[str, int | None]) -> None:
        self.file, self.lines = file, lines
        self.problems: list[Problem] = []

    def add(self, key: str, what: str, value: object = None, choices: Any = (), fix: str | None = None) -> None:
        """Note that the value of `key` is wrong."""
        line = self.lines.get(key)
        place = self.file if key not in self.lines or line is not None else "command line"
        near = nearest(str(value), choices) if value is not None else None
        self.problems.append(Problem(what, place, line, key, value, near, fix))


def _entries(text: str, file: str) -> tuple[dict[str, Any], dict[str, int | None], list[Problem]]:
    plain = re.sub(r"//[^\n]*", "", text)
    settings: dict[str, Any] = {}
    lines: dict[str, int | None] = {}
    problems = []
    at = 0
    while plain[at:].strip():
        match = _ENTRY.match(plain, at)
        start = at + len(plain[at:]) - len(plain[at:].lstrip())
        line = plain.count("\n", 0, start) + 1
        if match is None:
            bad = plain[start:].splitlines()[0]
            problems.append(Problem("this is not 'key = value;'", file, line, value=bad))
            end = plain.find(";", start)
            if end < 0:
                break
            at = end + 1
            continue
        settings[match.group(1)] = _value(match.group(2))
        lines[match.group(1)] = line
        at = match.end()
    return settings, lines, problems


def _value(text: str) -> Any:
    compact = re.sub(r"\s+", "", text)
    for kind in (int, float):
        try:
            return kind(compact)
        except ValueError:
            continue
    return compact


def _unknown(settings: dict[str, Any], lines: dict[str, int | None], file: str) -> list[Problem]:
    known = [*_USED, *_DEFAULT_ONLY, *_NO_INFLUENCE]
    problems = []
    for key, value in settings.items():
        place = file if lines[key] is not None else "command line"
        if key not in known:
            problems.append(Problem("unknown key", place, lines[key], key, value, nearest(key, known)))
        elif key in _DEFAULT_ONLY and value != _DEFAULT_ONLY[key]:
            fix = f"Only {key} = {_DEFAULT_ONLY[key]!r} is modelled."
            problems.append(Problem("this value is not supported", place, lines[key], key, value, None, fix))
    return problems


def _list(value: Any) -> list[str]:
    """The parts of ``{a,b}``, or the value itself as a single part."""
    text = str(value)
    if not text.startswith("{"):
        return [text] if text else []
    parts, depth, start = [], 0, 1
    for index, letter in enumerate(text):
        if letter == "{":
            depth += 1
        elif letter == "}":
            depth -= 1
        if (letter == "," and depth == 1) or (letter == "}" and depth == 0):
            if index > start:
                parts.append(text[start:index])
            start = index + 1
    return parts


def _numbers(report: _Reporter, key: str, value: Any, kind: type = float) -> list[Any]:
    found = []
    for part in _list(value):
        try:
            found.append(kind(part))
        except ValueError:
            report.add(key, "a number is needed", part)
    return found


def _case(given: dict[str, Any], report: _Reporter, folder: Path, topology: Topology | None = None) -> TrafficCase:
    get = {**_USED, **given}
    for key, default in _USED.items():
        number = isinstance(default, (int, float)) and key not in ("packet_size", "packet_size_rate", "injection_rate")
        if number and isinstance(get[key], str):
            report.add(key, "a number is needed", get[key])
        elif isinstance(default, int) and number and not isinstance(get[key], int):
            report.add(key, "a whole number is needed", get[key])
    if report.problems:
        raise TierformError(report.problems)
    for key, names in (("vc_allocator", _ALLOCATORS), ("sw_allocator", _ALLOCATORS)):
        if get[key] not in names:
            report.add(key, "unknown allocator", get[key], names, f"Known: {', '.join(names)}.")
    if get["topology"] not in _ROUTINGS:
        report.add("topology", "unknown topology", get["topology"], _ROUTINGS, f"Known: {', '.join(_ROUTINGS)}.")
    elif get["routing_function"] not in _ROUTINGS[get["topology"]]:
        names = _ROUTINGS[get["topology"]]
        report.add(
            "routing_function",
            f"unknown for a {get['topology']}",
            get["routing_function"],
            names,
            f"Known: {', '.join(names)}.",
        )
    if get["sim_type"] not in ("latency", "throughput"):
        report.add("sim_type", "unknown", get["sim_type"], ("latency", "throughput"))
    if get["sim_count"] != 1:
        report.add("sim_count", "one simulation at a time is supported", get["sim_count"])
    if report.problems:
        raise TierformError(report.problems)
    topology = topology or _topology(get, report, folder)
    name = _ROUTINGS[get["topology"]][get["routing_function"]]
    injection = _injection(get, report)
    traffic = _pattern(get, topology, report)
    if report.problems:
        raise TierformError(report.problems)
    assert traffic is not None
    assert injection is not None
    slots = get["vc_buf_size"] if get["buf_size"] <= 0 else max(get["buf_size"] // max(get["num_vcs"], 1), 1)
    router = RouterParameters(
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
        vc_allocator=_ALLOCATORS[get["vc_allocator"]],
        switch_allocator=_ALLOCATORS[get["sw_allocator"]],
        alloc_iterations=get["alloc_iters"],
        wait_for_tail_credit=bool(get["wait_for_tail_credit"]),
        vc_busy_when_full=bool(get["vc_busy_when_full"]),
    )
    sampling = Sampling(
        period=get["sample_period"],
        warmup_periods=get["warmup_periods"],
        max_periods=get["max_samples"],
        latency_threshold=float(get["latency_thres"]),
        warmup_change=float(get["warmup_thres"]),
        accepted_warmup_change=float(get["acc_warmup_thres"]),
        stopping_change=float(get["stopping_thres"]),
        accepted_stopping_change=float(get["acc_stopping_thres"]),
        measure_latency=get["sim_type"] == "latency",
    )
    return TrafficCase(
        topology,
        choose_routing(topology, name),
        get["routing_function"] == "dim_order_bal",
        router,
        traffic,
        injection,
        sampling,
        get["seed"],
    )


def _topology(get: dict[str, Any], report: _Reporter, folder: Path) -> Topology:
    kind, side, dimensions = get["topology"], get["k"], get["n"]
    far = bool(get["use_noc_latency"])
    if kind == "anynet":
        if not get["network_file"]:
            report.add("network_file", "an anynet needs its network file")
            raise TierformError(report.problems)
        return read_network_file(folder / str(get["network_file"]))
    if not 1 <= dimensions <= 8 or side < 1 or side**dimensions > 1 << 20:
        report.add("k", "k^n must be between 1 and a million routers", f"{side}^{dimensions}")
        raise TierformError(report.problems)
    if kind == "mesh":
        return mesh((side,) * dimensions)
    if kind == "torus":
        return torus((side,) * dimensions, latency_cycles=2 if far else 1)
    if get["c"] != 4 or dimensions != 2 or get["xr"] != 2 or get["yr"] != 2 or get["x"] != side or get["y"] != side:
        report.add("c", "a cmesh has n = 2, c = 4, xr = yr = 2 and x = y = k")
        raise TierformError(report.problems)
    return cmesh(side, latency_cycles=2 if far else 1)


def _injection(get: dict[str, Any], report: _Reporter) -> Injection | None:
    rates = _numbers(report, "injection_rate", get["injection_rate"])
    sizes = _numbers(report, "packet_size", get["packet_size"], int)
    weights = _numbers(report, "packet_size_rate", get["packet_size_rate"])
    if len(rates) != 1:
        report.add("injection_rate", "one rate is needed", get["injection_rate"])
    if not sizes or min(sizes) < 1:
        report.add("packet_size", "packets have at least one flit", get["packet_size"])
    if len(weights) < len(sizes):
        weights += [weights[-1] if weights else 1.0] * (len(sizes) - len(weights))
    name, _, inner = str(get["injection_process"]).partition("(")
    start = stop = None
    if name == "on_off":
        given = _numbers(report, "injection_process", "{" + inner.rstrip(")").strip("{}") + "}" if inner else "")
        start = given[0] if given else float(get["burst_alpha"])
        stop = given[1] if len(given) > 1 else float(get["burst_beta"])
        peak = given[2] if len(given) > 2 else float(get["burst_r1"])
        if peak >= 0 or not (0 < start <= 1 and 0 < stop <= 1):
            report.add("injection_process", "on_off needs alpha and beta in (0, 1] and no r1", get["injection_process"])
    elif name != "bernoulli":
        report.add("injection_process", "unknown", name, ("bernoulli", "on_off"), "Known: bernoulli, on_off.")
    if report.problems:
        return None
    injection = Injection(rates[0], tuple(sizes), tuple(weights[: len(sizes)]), start, stop)
    if get["injection_rate_uses_flits"]:
        injection = replace(injection, rate=rates[0] / injection.mean_flits)
    if not 0 <= float(injection.rate) <= 1:  # type: ignore[arg-type]
        report.add("injection_rate", "must be 0 to 1 packets per node and cycle", get["injection_rate"])
        return None
    return injection


def _pattern(get: dict[str, Any], topology: Topology, report: _Reporter) -> Pattern | None:
    name, _, inner = str(get["traffic"]).partition("(")
    if name not in _TRAFFIC:
        report.add("traffic", "unknown traffic", name, _TRAFFIC, f"Known: {', '.join(_TRAFFIC)}.")
        return None
    parts = _list(inner.rsplit(")", 1)[0]) if inner else []
    options: dict[str, Any] = {}
    if name == "hotspot":
        options["hotspots"] = _numbers(report, "traffic", parts[0] if parts else "", int)
        options["rates"] = _numbers(report, "traffic", parts[1] if len(parts) > 1 else "1")
    elif name == "background":
        options["excluded"] = _numbers(report, "traffic", parts[0] if parts else "", int)
    elif name == "randperm":
        options["seed"] = int(parts[0]) if parts else get["perm_seed"]
    elif name in ("tornado", "neighbor"):
        side = get["k"] * (get["xr"] if get["topology"] == "cmesh" else 1)
        options.update(side=side, dimensions=get["n"])
    if report.problems:
        return None
    try:
        return pattern(_TRAFFIC[name], topology.nodes, **options)
    except TierformError as error:
        for problem in error.problems:
            report.add("traffic", problem.what, problem.value)
        return None
