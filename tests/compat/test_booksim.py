"""Does the reader take BookSim2's configurations as BookSim2 does, and say what is wrong with the others?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.cli.main import main
from tierform.compat.booksim import case_from_settings, read_config
from tierform.errors import TierformError
from tierform.files import read_json

CONFIG = """// a comment
topology = mesh; k = 4; n = 2;
routing_function = dor; num_vcs = 4;
traffic = hotspot({{5,6},{3,1}});
packet_size = {{1,5}}; packet_size_rate = {{3,1}};
injection_rate = 0.05;  // packets
sample_period = 300; latency_thres = 300.0;
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "case.cfg"
    path.write_text(CONFIG)
    return path


def test_values_lists_comments_and_overrides(config):
    case = read_config(config, ("num_vcs=2", "injection_rate_uses_flits=1"))
    assert case.topology.routers == 16
    assert case.router.virtual_channels == 2
    assert case.injection.packet_flits == (1, 5)
    assert case.injection.mean_flits == 2.0
    assert case.injection.rate == pytest.approx(0.025)
    assert case.traffic.shared[[5, 6]].tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("num_vc = 3;", "unknown key.*\\n?.*num_vcs"),
        ("traffic = unifrom;", "unknown traffic"),
        ("injection_rate = -0.1;", "0 to 1"),
        ("injection_rate = 1.5;", "0 to 1"),
        ("speculative = 2;", "0 or 1"),
        ("vc_allocator = pin;", "unknown allocator"),
        ("hold_switch_for_packet = 1;", "not supported"),
        ("topology = dragonflyold;", "unknown topology"),
        ("routing_function = chaos;", "can deadlock"),
        ("routing_function = limited;", "unknown for a mesh"),
        ("k = 3; traffic = transpose;", "power of two"),
        ("k = 4000; n = 3;", "million"),
        ("num_vcs = 0;", "at least 1"),
        ("k = ;", "number"),
        ("what is this;", "key = value"),
        ("packet_size = 0;", "1 to 1,048,576 flits"),
    ],
)
def test_each_mistake_is_named_with_its_file(config, line, words):
    config.write_text(CONFIG + line)
    with pytest.raises(TierformError, match=words):
        read_config(config)


def test_every_mistake_is_reported_at_once_with_its_line(config):
    config.write_text(CONFIG + "spam = 1;\neggs = 2;\n")
    with pytest.raises(TierformError) as caught:
        read_config(config)
    assert [(p.key, p.line) for p in caught.value.problems] == [("spam", 8), ("eggs", 9)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("router 0 node 0 router 1\nrouter 1 node 1\nrouter 2 node 2", "disconnected"),
        ("router 0 node 0 router 2", "without gaps"),
        ("router 0 node 0 router 1 x", "latency"),
        ("router 0 node 0\nrouter 1 node 0", "already joined"),
        ("switch 0 node 0", "expected here"),
    ],
)
def test_network_files_that_make_no_network(tmp_path, text, words):
    (tmp_path / "x.net").write_text(text)
    path = tmp_path / "x.cfg"
    path.write_text("topology = anynet; routing_function = min; network_file = x.net;")
    with pytest.raises(TierformError, match=words):
        read_config(path)


def test_latencies_of_a_network_file_hold_for_their_direction(tmp_path):
    (tmp_path / "x.net").write_text("router 0 node 0 router 1 4\nrouter 1 node 1 router 2\nrouter 2 node 2 router 0\n")
    (tmp_path / "x.cfg").write_text("topology = anynet; routing_function = min; network_file = x.net;")
    topology = read_config(tmp_path / "x.cfg").topology
    found = zip(topology.link_source, topology.link_target, topology.link_latency_cycles, strict=True)
    assert {(int(a), int(b)): int(c) for a, b, c in found} == {
        (0, 1): 4,
        (1, 0): 1,
        (1, 2): 1,
        (2, 1): 1,
        (2, 0): 1,
        (0, 2): 1,
    }


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "x.cfg"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        read_config(path)
    except TierformError as error:
        assert str(error)


def test_the_command_writes_the_figures_and_its_exit_code_tells(config, tmp_path):
    out = tmp_path / "out.json"
    with pytest.raises(SystemExit) as code:
        main(["network", str(config), "injection_rate=0.02", "--json", str(out), "--map", str(tmp_path / "m.svg")])
    assert code.value.code == 0
    figures = read_json(out).content
    for key in (
        "packet_latency_cycles",
        "network_latency_cycles",
        "flit_latency_cycles",
        "hops",
        "accepted_flit_rate",
        "stable",
        "cycles",
        "cpu_s",
    ):
        assert key in figures
    assert (tmp_path / "m.svg").read_text().startswith("<svg")
    with pytest.raises(SystemExit) as code:
        main(["network", str(config), "injection_rate=0.9"])
    assert code.value.code == 1
    with pytest.raises(SystemExit) as code:
        main(["network", str(config), "spam=1"])
    assert code.value.code == 2


def test_one_router_is_a_network_without_links(config, tmp_path, capsys):
    out = tmp_path / "out.json"
    given = ["k=1", "traffic=uniform", "packet_size=1", "packet_size_rate=1", "injection_rate=0.1"]
    with pytest.raises(SystemExit) as code:
        main(["network", str(config), *given, "--json", str(out)])
    assert code.value.code == 0
    figures = read_json(out).content
    assert figures["link_load"] == []
    assert figures["hops"] == 1.0  # routers traversed
    assert figures["packet_latency_cycles"] >= 7.0  # 5 for the router and 2 for the two channels


def test_no_packet_has_no_latency(config, tmp_path, capsys):
    out = tmp_path / "out.json"
    with pytest.raises(SystemExit) as code:
        main(["network", str(config), "injection_rate=0", "--json", str(out)])
    assert code.value.code == 0
    figures = read_json(out).content
    assert figures["packets"] == 0
    assert figures["packet_latency_cycles"] is None
    assert figures["packet_latency_p99_cycles"] is None
    assert "nan" not in capsys.readouterr().out


def test_settings_without_a_file():
    case = case_from_settings({"topology": "torus", "k": 4, "n": 2, "routing_function": "dim_order", "num_vcs": 2})
    assert case.topology.links == 64
    assert set(case.topology.link_latency_cycles.tolist()) == {2}
