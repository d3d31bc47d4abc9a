"""Are BookSim2's lists, classes and modes meant as it means them, and is any mutated text read or refused in time?"""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.compat.booksim import case_from_settings, read_config
from tierform.errors import TierformError
from tierform.network import simulate_case

SMALL = {"topology": "mesh", "k": 4, "n": 2, "routing_function": "dim_order", "num_vcs": 4, "sample_period": 2000}


def test_a_list_of_sizes_is_one_for_each_class_and_a_list_in_it_a_mixture():
    one = case_from_settings({**SMALL, "packet_size": "{1,5}", "injection_rate": 0.05})
    assert one.injection.packet_flits == (1,)
    mixture = case_from_settings({**SMALL, "packet_size": "{{1,5}}", "injection_rate": 0.05})
    assert mixture.injection.packet_flits == (1, 5)
    # BookSim2 gives 19.48 cycles at 0.050 flits per node and cycle, and 22.67 at 0.154, on one seed each.
    assert simulate_case(one).packet_latency_cycles == pytest.approx(19.48, rel=0.015)
    assert simulate_case(mixture).packet_latency_cycles == pytest.approx(22.67, rel=0.015)


def test_thresholds_rates_and_priorities_of_classes():
    case = case_from_settings(
        {
            **SMALL,
            "classes": 3,
            "packet_size": "{5,{1,3}}",
            "packet_size_rate": "{1,{3,1}}",
            "injection_rate": "{0.02,0.005}",
            "latency_thres": "{300.0,400.0}",
            "class_priority": "{0,2}",
            "measure_stats": "{1,0}",
            "traffic": "{uniform,hotspot({{1,2},{3,1}})}",
            "priority": "class",
        }
    )
    assert [group.injection.packet_flits for group in case.classes] == [(5,), (1, 3), (1, 3)]
    assert case.classes[1].injection.packet_weights == (3.0, 1.0)
    assert [group.injection.rate for group in case.classes] == [0.02, 0.005, 0.005]
    assert [group.thresholds.latency_cycles for group in case.classes] == [300.0, 400.0, 400.0]
    assert [group.priority for group in case.classes] == [0, 2, 2]
    assert [group.measured for group in case.classes] == [True, False, False]
    assert case.classes[2].traffic.shared[[1, 2]].tolist() == [0.75, 0.25]
    result = simulate_case(case)
    assert result.stable
    assert sum(group.packets for group in result.classes) == result.packets
    total = sum(group.accepted_flit_rate for group in result.classes)
    assert total == pytest.approx(result.accepted_flit_rate)


def test_a_higher_class_waits_less_under_load():
    latency = {}
    for kind in ("none", "class"):
        case = case_from_settings(
            {
                **SMALL,
                "classes": 2,
                "class_priority": "{0,1}",
                "priority": kind,
                "packet_size": 5,
                "injection_rate": "{0.07,0.02}",
                "vc_allocator": "separable_input_first",
                "sw_allocator": "separable_input_first",
            }
        )
        latency[kind] = [group.packet_latency_cycles for group in simulate_case(case).classes]
    assert latency["none"][1] == pytest.approx(latency["none"][0], rel=0.05)
    assert latency["class"][1] < 0.95 * latency["class"][0]


def test_a_batch_takes_at_least_its_flits_through_the_busiest_port():
    case = case_from_settings(
        {**SMALL, "sim_type": "batch", "batch_size": 100, "batch_count": 3, "packet_size": 2, "traffic": "transpose"}
    )
    result = simulate_case(case)
    assert len(result.batch_cycles) == 3
    # 200 flits leave each node one a cycle; transpose on a 4 x 4 mesh brings three nodes' flits over one link.
    assert all(600 < took < 900 for took in result.batch_cycles)
    few = case_from_settings(
        {**SMALL, "sim_type": "batch", "batch_size": 50, "max_outstanding_requests": 1, "traffic": "neighbor"}
    )
    # One packet at a time, each at least 5 + 5 + 2 cycles on its way, most over one link.
    assert simulate_case(few).batch_cycles[0] > 50 * 12


def test_two_subnets_carry_more_than_one():
    rates = []
    for subnets in (1, 2):
        case = case_from_settings(
            {**SMALL, "subnets": subnets, "packet_size": 5, "injection_rate": 0.2, "sim_type": "throughput"}
        )
        rates.append(simulate_case(case).accepted_flit_rate)
    assert rates[1] > 1.2 * rates[0]


def test_a_run_that_drains_long_is_bounded():
    case = case_from_settings(
        {
            "topology": "torus",
            "k": 10,
            "n": 2,
            "routing_function": "dim_order",
            "num_vcs": 3,
            "packet_size": 5,
            "injection_rate": 0.2,
            "vc_allocator": "separable_input_first",
            "sw_allocator": "separable_input_first",
            "credit_delay": 2,
            "routing_delay": 0,
            "use_noc_latency": 0,
            "latency_thres": 1000000.0,
            "sample_period": 100,
            "max_samples": 5,
        }
    )
    result = simulate_case(case)
    # BookSim2 ends this run after 2,699 cycles.
    assert result.stable
    assert result.cycles < 20_000


CONFIG = """// a comment
topology = mesh; k = 4; n = 2;
routing_function = dor; num_vcs = 4;
traffic = hotspot({{5,6},{3,1}});
packet_size = {{1,5}}; packet_size_rate = {{3,1}};
injection_rate = 0.05;  // packets
latency_thres = {300.0,100.0}; classes = 2; priority = class;
"""
NETWORK = "router 0 node 0 node 1 router 1 2\nrouter 1 node 2 router 0 3\n"
PIECES = [
    "",
    ";",
    "{",
    "}",
    "(",
    "=",
    "\n",
    "\0",
    "²",
    "1e999",
    "-",
    "9" * 25,
    "nan",
    "//",
    "{{{{",
    "1_000",
    "\u2003",
    "😀",
]


@settings(max_examples=300, deadline=2000)
@given(st.data())
def test_a_mutated_configuration_is_read_or_refused(tmp_path_factory, data):
    text = CONFIG
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(PIECES)) + text[at + data.draw(st.integers(0, 6)) :]
    path = tmp_path_factory.mktemp("fuzz") / "x.cfg"
    path.write_text(text, encoding="utf-8")
    try:
        case = read_config(path)
        assert case.topology.routers <= 1 << 20
        assert 0 <= case.flit_rate < 1e7
    except TierformError as error:
        assert str(error)


@settings(max_examples=200, deadline=2000)
@given(st.data())
def test_a_mutated_network_file_is_read_or_refused(tmp_path_factory, data):
    text = NETWORK
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from([*PIECES, "router ", "node 7 ", "65535 "]))
        text = text[:at] + piece + text[at + data.draw(st.integers(0, 6)) :]
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "x.net").write_text(text, encoding="utf-8")
    (folder / "x.cfg").write_text("topology = anynet; routing_function = min; network_file = x.net;")
    try:
        assert read_config(folder / "x.cfg").topology.nodes >= 1
    except TierformError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    ["{" * 200_000, "a=" * 200_000, "a=1;" * 200_000, "k = " + "9" * 1_000_000 + ";", "x{}" * 100_000, "\n" * 500_000],
)
def test_long_texts_take_time_in_proportion(tmp_path, text):
    path = tmp_path / "x.cfg"
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(TierformError):
        read_config(path)
    assert time.process_time() - started < 2
