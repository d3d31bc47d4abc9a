"""Fuzzing targets of files that came later: networks, their traces, layouts, spaces, engines, requests, plans, GGUF."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from fuzz_target import Target

NETWORKS = [
    b"network:\n  topology: mesh_3d\n  shape: [3, 3, 2]\n  pillars: [[1, 1]]\n  pitch: 0.5 mm\n  width: 128 bit\n"
    b"routing: elevator_first\nclock: 1 GHz\nrouter: {virtual_channels: 2, flit_bits: 128}\npacket_flits: 4\n"
    b"flows:\n  - {from: [0], to: [4, 12, 17], size: 256 B, multicast: true}\n"
    b"  - {from: [17], to: [0], size: 64 B, after: [0], delay: 100 ns}\n",
    b"network: {topology: chiplets, array: [2, 1], mesh_shape: [3, 3], links_per_edge: 1}\nclock: 2 GHz\n"
    b"traffic: {pattern: uniform, flit_rate: 0.02, packet_flits: [1, 5], period: 300}\n",
]
_PACKETS = b"".join(struct.pack("<QIIBBBBB", 10 * n, n, 64 * n, 2, n, 3 - n, 0, 0) for n in range(4))
PACKETS = [
    b"0 0 5 1\n3,1,2,4  # a comment\n7 2 0 9\n",
    struct.pack("<If30sBBQQII8x", 0x484A5455, 1.0, b"x", 4, 0, 40, 4, 0, 0) + _PACKETS,
]
LAYOUTS = [
    b"a head line\nG1,2,8,1,4,1,4,2,1,0,5,4,3,3,0,1,2,7,4,5,6,\n",
    b"a head line\nA, 2, 2, 1, 1, 4, 4, 0, 1, 2, 4, 5, 3, 3, 2, 1, 0, 4, 5, 6, 7,\n",
]
SPACES = [
    b"schema: tierform.space/1\nname: x\njob: {model: bert-base, task: {kind: inference, batch: 8}, chip: hetrax}\n"
    b"parameters:\n  reram: {path: chip.package.dies.reram.holds.reram, values: [24, 36]}\n"
    b"  clock: {path: chip.network.clock, from: 0.5 GHz, to: 2 GHz, log: true}\n"
    b"  batch: {path: task.batch, from: 1, to: 9, whole: true, when: {reram: [24]}}\n"
    b"derived: {chip.memory.0.count: reram / 12}\nsplits: {devices: 8, over: [tensor, pipeline]}\n"
    b"objectives: [latency_s, {energy_J: least}]\nlimits: {kelvin_over: 0}\n",
]
ENGINES = [
    b"max_num_seqs: 64\nmax_num_batched_tokens: 1024\nmax_model_len: 8192\nenable_prefix_caching: false\n"
    b"scheduler: vllm\nwatermark: 0.01\nblock_size: 32\ngpu_memory_utilization: 0.9\nnum_gpu_blocks: 500\n",
]
REQUESTS = [
    b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.03,110,27\n",
    b"arrival_s,prompt_tokens,output_tokens,priority\n0.5,10,20,1\n0.75,1,2,0\n",
    b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API\n",
    b"arrived_at,num_prefill_tokens,num_decode_tokens\n0.1,30,4\n0.2,3,40\n",
    b'{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'
    b'{"timestamp": 3, "input_length": 513, "output_length": 9, "hash_ids": [1, 3]}\n',
    b'{"arrival_time_ns": 5, "input_toks": 3, "output_toks": 4, "input_tok_ids": [1, 2, 3]}\n',
    b'{"input_lens": [3, 4], "output_lens": [5, 6], "start_times": [10.5, 11.0]}\n',
]
PLANS = [
    b'{"schema": "tierform.compression-plan/1", "model": "m", "method": "gptq", "exact_B": 12, "settings": {},'
    b'"matrices": {"a.q": {"shape": [64, 32], "format": "int4-g32z", "density": "2:4"},'
    b'"a.k": {"shape": [64, 32], "format": "nf4-64", "density": 0.5}}, "skipped": ["a.attention"]}',
]
TRAFFIC = [
    b'{"schema": "noc-reference/1", "tiles": [{"router": 0, "kind": "a", "position_m": [0, 0, 0], "die": 0},'
    b'{"router": 1, "kind": "b", "position_m": [0.001, 0, 0], "die": 0}], "links": [[0, 1, 0.001, 128, 1, "planar"],'
    b'[1, 0, 0.001, 128, 1, "planar"]], "bytes_tile_to_tile": [[0, 100], [50, 0]], "router_pipeline_cycles": 3,'
    b'"flit_bits": 128, "clock_Hz": 1e9, "energy_J_per_bit": {"router": 1e-13, "wire_per_m": 1e-10, "vertical": 1e-14,'
    b'"interposer": 1e-12}}',
]


def gguf() -> list[bytes]:
    """A file of two tensors and four entries."""

    def text(words: bytes) -> bytes:
        return struct.pack("<Q", len(words)) + words

    keys = ("block_count", "attention.head_count", "embedding_length", "feed_forward_length", "context_length")
    entries = [
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
        text(b"general.alignment") + struct.pack("<II", 4, 32),
        text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"bc"),
        *(text(b"llama." + key.encode()) + struct.pack("<II", 4, 32) for key in keys),
    ]
    tensors = [
        text(b"token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 4, 0, 0),
        text(b"blk.0.attn_q.weight") + struct.pack("<IQQIQ", 2, 32, 2, 2, 512),
    ]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries)) + b"".join(entries) + b"".join(tensors)
    return [head + bytes(-len(head) % 32) + bytes(512 + 64)]


def _network(path: Path) -> Any:
    from tierform.network.file import read_network_job

    return read_network_job(path).topology.position_m


def _packets(path: Path) -> Any:
    from tierform.compat.noc_traces import read_trace

    return read_trace(path)


def _layout(path: Path) -> Any:
    from tierform.compat.scalesim.layout import filter_lines, ifmap_lines, read_layout
    from tierform.errors import TierformError

    found = read_layout(path)
    for lay in (lambda: ifmap_lines(found, (9, 7, 4), 16), lambda: filter_lines(found, (5, 4, 3, 3), 16, 100)):
        try:
            lay()
        except TierformError:  # a layout of other widths
            continue
    return found.ifmap_factors, found.filter_factors


def _space(path: Path) -> Any:
    from tierform.exploration.space_file import load_space

    return len(load_space(path).parameters)


def _engine(path: Path) -> Any:
    from tierform.serving.engine import load_engine

    return load_engine(path)


def _requests(path: Path) -> Any:
    from tierform.serving.traces import load_trace

    return load_trace(path)


def _plan(path: Path) -> Any:
    from tierform.compression.plan import read_plan

    plan = read_plan(path)
    return [(one.bits_per_weight, one.size_B) for one in plan.matrices.values()], plan.exact_B


def _traffic(path: Path) -> Any:
    from tierform.exploration.traffic_file import load_traffic

    return load_traffic(path).bytes_between


def _gguf(path: Path) -> Any:
    from tierform.gguf import read_gguf

    found = read_gguf(path)
    return [(one.weights, one.size_B) for one in found.tensors.values()], found.config()


WIDE: dict[str, Target] = {
    "network": Target("net.yaml", lambda: NETWORKS, _network),
    "packets": Target("packets.trace", lambda: PACKETS, _packets),
    "layout": Target("layout.csv", lambda: LAYOUTS, _layout),
    "space": Target("space.yaml", lambda: SPACES, _space),
    "engine": Target("engine.yaml", lambda: ENGINES, _engine),
    "requests": Target("requests", lambda: REQUESTS, _requests),
    "plan": Target("plan.json", lambda: PLANS, _plan),
    "traffic": Target("traffic.json", lambda: TRAFFIC, _traffic),
    "gguf": Target("model.gguf", lambda: gguf(), _gguf),
}
