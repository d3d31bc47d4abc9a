"""Right files of every kind, small, from which the fuzzing of the parsers begins."""

from __future__ import annotations

import copy
import io
import json
import random
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

UNITS = [
    b"00.9 pJ/bit",
    b"145 degC",
    b"285 %",
    b"3400 W/(m*K)",
    b"41_000 MHz",
    b"512 us",
    b"00.372 m^2*kg/s^2",
    b"1300 K",
]
YAML = [
    b"a: 1\nb:\n  c: [1, 2.5, -3e4]\n  d: {e: x, f: null, g: true}\n",
    b"- 1\n- 'a b'\n- \"\\u00b5\"\n- |\n  two\n  lines\n",
]
JSON = [b'{"a": 1, "b": [1, 2.5, -3e4, null, true], "c": {"d": "\\u00b5\\n"}}']
SAMPLES = [
    b"# measured\ndtype,m,n,k,latency_ms\nbf16,128,256,512,0.012\nint8,64,64,64,0.003\n",
    b"device,batch_size,isl,step,num_heads,num_key_value_heads,head_dim,attn_dtype,latency\nA,1,128,0,8,8,64,fp16,0.2\n",
    b"op_name,nccl_dtype,num_gpus,message_size,latency\nall_reduce,half,8,1024,0.05\n",
]
JOBS = [
    b"schema: tierform.job/1\nmodel: gpt2\nchip: a100\nruntime: eager\nfidelity: analytic\n"
    b"task: {kind: inference, batch: 4, sequence: 128, decode: 16}\nmicro_batches: 2\n"
    b"parallelism: {tensor: 2, pipeline: 2, data: 1}\n",
    b"model: bert-base\nchip: atleus\nthermal: none\n"
    b"task: {kind: finetuning, batch: 8, sequence: 64, method: {kind: lora, rank: 8, targets: [q, v]}}\n",
]
ROWS = [b'{"text": "a b", "label": 1}\n{"text": "c", "label": 0}\n']
DRAMSIM = [
    b"[dram_structure]\nprotocol = DDR4\nbankgroups = 4\nbanks_per_group = 4\nrows = 65536\ncolumns = 1024\n"
    b"device_width = 8\nBL = 8\n\n[timing]\ntCK = 0.83\nAL = 0\nCL = 17\nCWL = 12\ntRCD = 17\ntRP = 17\ntRAS = 39\n"
    b"tRFC = 420\ntRFC2 = 312\ntRFC4 = 192\ntREFI = 9360\ntRPRE = 1\ntWPRE = 1\ntRRD_S = 4\ntRRD_L = 6\ntWTR_S = 3\n"
    b"tWTR_L = 9\ntFAW = 26\ntWR = 18\ntWR2 = 19\ntRTP = 9\ntCCD_S = 4\ntCCD_L = 6\ntCKE = 6\ntCKESR = 7\ntXS = 432\n"
    b"tXP = 8\ntRTRS = 1\n\n[power]\nVDD = 1.2\nIDD0 = 48\nIPP0 = 3.0\nIDD2P = 25\nIDD2N = 34\nIDD3P = 37\nIDD3N = 43\n"
    b"IDD4W = 123\nIDD4R = 135\nIDD5AB = 250\nIDD6x = 30\n\n[system]\nchannel_size = 16384\nchannels = 1\n"
    b"bus_width = 64\naddress_mapping = rochrababgco\nqueue_structure = PER_BANK\n"
    b"refresh_policy = RANK_LEVEL_STAGGERED\nrow_buf_policy = OPEN_PAGE\ncmd_queue_size = 8\ntrans_queue_size = 32\n"
]
DRAM_TRACE = [b"0x1F40 READ 0\n0x2F80 WRITE 10\n# pause\n0x1F80 READ 40\n", b"0 P_MEM_RD 1\n40 P_MEM_WR 2\n"]
RAMULATOR_TRACE = [b"R 0,0,0,0,5,1\nW 0,0,1,0,5,1\n", b"LD 0x1f40\nST 0x2f80\n", b"0x1F40 R\n0x2F80 W\n"]
SCALESIM_TOPOLOGY = [
    b"Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
    b"Conv1, 27, 27, 11, 11, 3, 9, 4,\nConv2DP, 17, 17, 5, 5, 9, 25, 1,\nFC, 1, 1, 1, 1, 92, 10, 1,\n",
    b"Layer, a, b, c, d, e, f, g,\nWide, 27, 270, 11, 11, 3, 9, 4,\n",  # more than a buffer holds
    b"Layer,M,N,K,\nG1, 128, 64, 256,\nG2, 10, 100, 512, 2:4,\n",
]
BOOKSIM = [
    b"// a comment\ntopology = mesh; k = 4; n = 2;\nrouting_function = dor; num_vcs = 4;\n"
    b"traffic = hotspot({{5,6},{3,1}});\npacket_size = {1,5}; packet_size_rate = {3,1};\n"
    b"injection_rate = 0.05;  // packets\nsample_period = 300; latency_thres = 300.0;\n",
    b"topology = torus; k = 4; n = 2; routing_function = dim_order; traffic = uniform; injection_rate = 0.1;\n",
    b"topology = anynet; network_file = a.net; routing_function = min; traffic = uniform; injection_rate = 0.1;\n",
    b"topology = fattree; k = 4; n = 2; routing_function = nca; traffic = uniform; injection_rate = 0.1;\n",
]
HOTSPOT = {
    "a.config": "-t_chip 0.00015 # thickness\n-k_chip 130\n-grid_map_mode avg\n-sampling_intvl 0.01\n"
    "-model_type block\n-s_sink 0.06\n-t_sink 0.0069\n-s_spreader 0.03\n-r_convec 0.1\n"
    "-ambient 318.15\n-grid_rows 8\n-grid_cols 8\n",
    "a.flp": "# name w h x y\nleft\t0.004\t0.008\t0.0\t0.0\nright 0.004 0.008 0.004 0.0\n\nleft right 1.0\n",
    "a.ptrace": "left\tright\n10\t5\n20\t5\n",
    "b.ptrace": "left right right left\n1 2 3 4\n",
    "a.lcf": "# two dies\n0\nY\nY\n1.75e6\n0.01\n0.00015\na.flp\n1\nY\nN\npaste\n2e-05\na.flp\n2\nY\nY\n1.75e6\n"
    "0.01\n0.00015\na.flp\n",
    "a.materials": "paste\nsolid\n4.0\n4e6\n# coolant\nwater\nfluid\n0.6\n4.1e6\n8.9e-4\n",
}
TUNE = [
    b"model: wind\ndata: {series: winds.csv, test_rows: [4, 9], history: 15}\nsteps: 20\nbatch: 2\nseed: 1\n"
    b"start: full\nlayer: 1\noptimizer: {kind: adam, learning_rate: 1e-3, decay: [5, 0.5]}\n"
    b"low_optimizer: {kind: sgd}\nlow_rank: {rank: 4, alpha: 6, dropout: 0, targets: [q], share: 0.9}\n"
    b"rule: {kind: hpt, window: 5, alpha: 0.5, loss_threshold: 0.1, weight_threshold: 0.01}\ncheckpoint_every: 5\n"
    b"threads: 1\noutput: o\n",
    b"model: swe\ndata: {synthetic: 64}\nsteps: 9\noutput: o\n"
    b"rule: {kind: plateau, window: 2, threshold: 0.1, patience: 2}\n",
    b"model: my.py:build\ndata: {module: 'my.py:batches'}\nloss: my.py:loss\nsteps: 9\n"
    b"rule: {kind: intrinsic, dimension: 4, window: 3, trial: true}\noutput: o\n",
]
RECORDS = [
    b"date,station,target,x (mm)\n2016-07-01,a,1,2\n2016-07-01,b,3,?\n7/2/16,a,5,6\n2016-07-02,b,7,8\n",
    b"station,lat,1/22/20,1/23/20\nKing,47.5,1,2\nPierce,47.1,3,4\n",
]
RANGES = [b"bytes=0-99", b"bytes=-5", b"bytes=900-", b"bytes = 0-0", b"bytes=0-1,5-6", b"items=0-1"]


def series() -> list[bytes]:
    """Wide tables."""
    rows = [",".join(str((row * 7 + column) % 11 - 3.5) for column in range(4)) for row in range(12)]
    dated = [f"2016-07-01 {row:02d}:00:00,{text}" for row, text in enumerate(rows)]
    return ["\n".join(rows).encode(), "\n".join(["date,a,b,c,d", *dated]).encode()]


def anynet() -> list[bytes]:
    """Network files."""
    return [b"router 0 node 0 node 1 router 1 4\nrouter 1 node 2 router 2\nrouter 2 node 3 router 0 2\n"]


def scalesim_config() -> list[bytes]:
    """A configuration with every usual section."""
    return [
        b"[general]\nrun_name = small\n\n[architecture_presets]\nArrayHeight: 8\nArrayWidth: 8\nIfmapSramSzkB: 64\n"
        b"FilterSramSzkB: 64\nOfmapSramSzkB: 64\nIfmapOffset: 0\nFilterOffset: 10000000\nOfmapOffset: 20000000\n"
        b"Dataflow: ws\nBandwidth: 10\nMemoryBanks: 1\n\n[run_presets]\nInterfaceBandwidth: CALC\n"
    ]


def configurations() -> list[bytes]:
    """config.json of several families."""
    common = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    common |= {"vocab_size": 100, "max_position_embeddings": 64}
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 2, **common}
    mixtral = {**llama, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    bert = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "type_vocab_size": 2, **common}
    gpt2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 100}
    t5 = {
        "model_type": "t5",
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 100,
    }
    vit = {"model_type": "vit", "image_size": 32, "patch_size": 8, "num_channels": 3, **common}
    qwen = {**llama, "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    deepseek = {**llama, "model_type": "deepseek_v3", "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8}
    deepseek |= {"qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "moe_intermediate_size": 32}
    return [json.dumps(one, indent=1).encode() for one in (llama, mixtral, bert, gpt2, t5, vit, qwen, deepseek)]


@lru_cache(maxsize=1)
def operators() -> tuple[Any, ...]:
    """Operators that a component may be asked for."""
    from tierform.chip.sample_operators import elementwise, product
    from tierform.workload.operator import Kind

    return (product(4, 96, 64), product(4, 96, 64, held=False, precision="fp16"), elementwise(Kind.SOFTMAX, 1000))


@lru_cache(maxsize=1)
def chip_and_workload() -> tuple[Any, Any]:
    """A chip and a workload, for mapping files."""
    from tierform.chip.description import load_chip
    from tierform.workload import expand, load_model
    from tierform.workload.task import Inference

    return load_chip("atleus"), expand(load_model("bert-base"), Inference(batch=1, sequence=16))


def mappings() -> list[bytes]:
    """The mapping that is made for them."""
    from tierform.mapping import default_mapping

    with tempfile.TemporaryDirectory() as folder:
        chip, workload = chip_and_workload()
        default_mapping(chip, workload).save(Path(folder) / "map.yaml")
        return [(Path(folder) / "map.yaml").read_bytes()]


def _trainer() -> Any:
    import torch
    from torch import nn

    from tierform.tuning.lowrank import LowRank
    from tierform.tuning.rule import FixedStep
    from tierform.tuning.trainer import HybridTrainer

    torch.manual_seed(0)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_linear, self.v_linear = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return torch.tanh(self.q_linear(x)) * self.v_linear(x)

    return HybridTrainer(
        nn.Sequential(Layer(), nn.Linear(4, 1)),
        lambda model, batch: model(batch).square().mean(),
        FixedStep(4, window=2, trial=True),
        LowRank(rank=2),
        accelerator=_accelerator(),
    )


@lru_cache(maxsize=1)
def _accelerator() -> Any:
    from tierform.tuning.side import accelerated

    made = accelerated()

    def free_memory(*objects: Any) -> list[Any]:
        """As accelerate's own, without a search for garbage through all of torch's objects each time."""
        made._schedulers, made._optimizers, made._models, made._dataloaders, made.step = [], [], [], [], 0
        return list(objects)

    made.free_memory = free_memory
    return made


@lru_cache(maxsize=1)
def checkpoints() -> list[bytes]:
    """Checkpoints of a small run in full mode, inside the trial, and after the switch."""
    import torch

    found, trainer = [], _trainer()
    with tempfile.TemporaryDirectory() as folder:
        for step in range(9):
            trainer.step(torch.ones(3, 4) * (step + 1))
            if step in (2, 4, 8):
                trainer.save(Path(folder) / "run.tft")
                found.append((Path(folder) / "run.tft").read_bytes())
    return found


def resume(path: Path) -> None:
    """Go on from a checkpoint: one step."""
    import torch

    trainer = _trainer()
    trainer.resume(path)
    trainer.step(torch.ones(3, 4))


@lru_cache(maxsize=1)
def _checkpoint_values() -> list[Any]:
    import torch

    return [torch.load(io.BytesIO(one.partition(b"\n")[2]), weights_only=True) for one in checkpoints()]


def forge(content: bytes) -> bytes:
    """A checkpoint with a right digest in which a value or two were exchanged; `content` only chooses which."""
    from tierform.tuning import checkpoint

    rng = random.Random(content)
    whole = dict(rng.choice(_checkpoint_values()))
    for _ in range(rng.choice((1, 1, 2))):
        _exchange(whole, rng)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write(Path(folder) / "x.tft", whole)
        return (Path(folder) / "x.tft").read_bytes()


def _exchange(whole: Any, rng: random.Random) -> None:
    import torch

    values: list[Any] = [
        -5,
        0,
        10**30,
        -1.0,
        float("nan"),
        float("inf"),
        "",
        "trial",
        "full",
        "low",
        None,
        [],
        {},
        True,
    ]
    values += [torch.zeros(0), torch.full((3, 3), float("nan")), torch.ones(2**10, dtype=torch.int64), [[]], {"": 1}]
    place = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8:
            place[key] = copy.copy(place[key])  # along the way only: the rest is shared with the seed
            place = place[key]
            continue
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(values)
        return


@lru_cache(maxsize=1)
def stores() -> list[bytes]:
    """Stores in every layout."""
    import numpy as np

    from tierform.store.writer import PackOptions, pack_tensors

    rng, found = np.random.default_rng(5), []
    tensors = {"w": rng.standard_normal((9, 70)).astype(np.float16), "s": np.float32(1.5).reshape(())}
    options = [PackOptions(threads=1), PackOptions(layout="adjacent", threads=1)]
    try:
        import zstandard  # noqa: F401

        options.append(PackOptions(codec="zstd", threads=1))
    except ImportError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        for one in options:
            pack_tensors(tensors, Path(folder) / "x.tfs", one, attachments={"config.json": b"{}"})
            found.append((Path(folder) / "x.tfs").read_bytes())
    return found


def safetensors() -> list[bytes]:
    """Files with a few tensors."""
    from tierform.store.safetensors_file import build_header

    header, _ = build_header([("a", "F16", (2, 3), 12), ("b", "I8", (), 1), ("c", "F32", (1,), 4)], {"format": "pt"})
    return [header + bytes(range(17))]
