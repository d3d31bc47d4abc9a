"""Does a network file make the network that it says, with its pillars, chiplets and multicasts?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.files import read_json
from tierform.network import LINK_KINDS, simulate_flows
from tierform.network.file import read_network_job

STACK = """
network:
  topology: mesh_3d
  shape: [3, 3, 2]
  pillars: [[1, 1]]
  pitch: 0.5 mm
  tier_pitch: 50 um
  width: 128 bit
  vertical_width: 64 bit
  vertical_latency_cycles: 2
routing: elevator_first
clock: 1 GHz
router: {virtual_channels: 2, flit_bits: 128}
packet_flits: 4
flows:
  - {from: [0], to: [4, 12, 17], size: 256 B, multicast: true}
  - {from: [17], to: [0], size: 64 B, after: [0], delay: 100 ns}
"""
CHIPLETS = """
network: {topology: chiplets, array: [2, 1], mesh_shape: [3, 3], links_per_edge: 1, interposer_latency_cycles: 3}
clock: 2 GHz
traffic: {pattern: uniform, flit_rate: 0.02, packet_flits: [1, 5], period: 300}
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "net.yaml"
        path.write_text(text)
        return path

    return write


def test_pillars_widths_and_lengths_are_those_of_the_file(file):
    job = read_network_job(file(STACK))
    vertical = job.topology.link_kind == LINK_KINDS.index("vertical")
    assert vertical.sum() == 2  # one pillar, up and down
    assert set(job.topology.link_width_bits[vertical].tolist()) == {64}
    assert set(job.topology.link_latency_cycles[vertical].tolist()) == {2}
    assert set(job.topology.link_length_m[~vertical].tolist()) == {0.5e-3}
    assert job.flows[0].multicast
    times = simulate_flows(
        job.topology, job.routing, job.router, job.clock_Hz, job.flows, packet_flits=job.packet_flits
    )
    # 256 bytes are 16 flits of 128 bits; half as wide, the pillar takes each in two cycles.
    assert times.finished_s[0] > 16 * 2 * 1e-9
    assert times.released_s[1] == pytest.approx(times.finished_s[0] + 100e-9)


def test_the_command_runs_flows_and_traffic(file, tmp_path):
    out = tmp_path / "out.json"
    with pytest.raises(SystemExit) as code:
        main(["network", str(file(STACK)), "--json", str(out), "--map", str(tmp_path / "m.svg")])
    assert code.value.code == 0
    flows = read_json(out).content["flows"]
    assert flows[1]["started_s"] >= flows[0]["finished_s"]
    with pytest.raises(SystemExit) as code:
        main(["network", str(file(CHIPLETS)), "--json", str(out)])
    assert code.value.code == 0
    assert read_json(out).content["accepted_flit_rate"] == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("sizes", ["[1, -1]", "[0]", "[2000000]"])
def test_packets_of_no_flits_are_refused(file, sizes):
    sent = CHIPLETS.replace("packet_flits: [1, 5]", f"packet_flits: {sizes}")
    assert sent != CHIPLETS
    with pytest.raises(TierformError, match="packet_flits"):
        read_network_job(file(sent))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("topology: mesh_3d", "topology: mesh3d", "unknown topology.*\\n?.*mesh_3d"),
        ("pitch: 0.5 mm", "pich: 0.5 mm", "unknown key of mesh_3d"),
        ("pitch: 0.5 mm", "pitch: 0.5 s", "converts to m"),
        ("pitch: 0.5 mm", "pitch: -1 mm", "positive"),
        ("shape: [3, 3, 2]", "shape: abc", "this is no"),
        ("shape: [3, 3, 2]", "shape: [3, 3, 99999999]", "at most a million"),
        ("pillars: [[1, 1]]", "pillars: [[9, 9]]", "on the mesh"),
        ("virtual_channels: 2", "virtual_channels: two", "this is no int"),
        ("virtual_channels: 2", "virtual_chanels: 2", "unknown key of a router"),
        ("routing: elevator_first", "routing: elevator", "unknown name"),
        ("to: [0], size", "to: [99], size", "nodes 0 to 17"),
        ("after: [0]", "after: [7]", "waits for flow 7"),
        ("clock: 1 GHz", "clock: 0 GHz", "greater than 0"),
        ("topology: mesh_3d", "topology: [mesh_3d]", "unknown topology"),
    ],
)
def test_mistakes_are_named(file, old, new, words):
    assert old in STACK
    with pytest.raises(TierformError, match=words):
        job = read_network_job(file(STACK.replace(old, new)))
        simulate_flows(job.topology, job.routing, job.router, job.clock_Hz, job.flows)


@given(st.data())
def test_a_mutated_file_is_read_or_refused(tmp_path_factory, data):
    text = data.draw(st.sampled_from([STACK, CHIPLETS]))
    at = data.draw(st.integers(0, len(text) - 1))
    piece = data.draw(st.sampled_from(["", "-", "9999999999999", "²", "[", "{", "null", "1e400", "\t", ": ", "true"]))
    path = tmp_path_factory.mktemp("fuzz") / "net.yaml"
    path.write_text(text[:at] + piece + text[at + data.draw(st.integers(0, 3)) :])
    try:
        read_network_job(path)
    except TierformError as error:
        assert str(error)
