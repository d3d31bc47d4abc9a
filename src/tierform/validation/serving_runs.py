"""Real runs of serving engines, and steady serving whose energy was measured, against `tierform serve`.

A run's settings are those that its engine resolved to (``meta.json``).  Times count from the moment at which a request
entered the engine's queue, on the engine's clock.  It is served twice: with measured tables of the card and model
where the folder has some, and from the card's data sheet.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import load_chip
from tierform.errors import fail
from tierform.files import read_text, read_yaml
from tierform.serving.capacity import capacity
from tierform.serving.engine import Engine
from tierform.serving.grid import Grid
from tierform.serving.measured import load_tables
from tierform.serving.requests import Requests, TokenIds
from tierform.serving.serve import serve
from tierform.serving.service import Service
from tierform.serving.simulated import SimulatedOracle
from tierform.simulation.runtime import load_runtime
from tierform.validation.ledger import Point, Tolerance
from tierform.validation.serving_prompts import prompts_of
from tierform.workload import Model, load_model
from tierform.workload.parallel import Parallelism

Floats = NDArray[np.float64]
CHIPS = {
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA L40S": "l40s",
}
MODELS = {"Llama-3.1-8B": "llama-3.1-8b", "Llama-3.1-70B": "llama-3.1-70b"}
TIMES = (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("end to end", "e2e_s"))
FROM_TABLES = (0.015, 0.015, 0.015)
FROM_SHEET = (0.20, 0.08, 0.08)
SINGLE = (3.0, None, 2.0)  # % of nine requests in ten from measured tables, where it is known what the prompts say
NONE = (None, None, None)
BLOCKS = 0.05
_TABLES = Path(__file__).parent / "tables" / "serving"
_ENERGY = Path(__file__).parent / "tables" / "models.csv"
ENERGY_BATCHES = (8, 64, 255)
JOULES, WATTS = 0.15, 0.10


class _Run:
    """A recorded run: its requests, times, and what its engine resolved to."""

    def __init__(self, root: Path, name: str) -> None:
        path = root / f"{name}.meta.json"
        try:
            meta = json.loads(read_text(path))
            rows = list(csv.DictReader(read_text(root / f"{name}.requests.csv").splitlines()))
            rows.sort(key=lambda one: float(one["queued_s"]))
            queued, first, last = (
                np.array([float(one[key]) for one in rows]) for key in ("queued_s", "first_token_s", "last_token_s")
            )
            output = np.array([int(one["output_tokens"]) for one in rows])
            self.requests = Requests(
                np.rint((queued - queued.min()) * 1e9).astype(np.int64),
                np.array([int(one["prompt_tokens"]) for one in rows]),
                output,
                content=_prompts(root, name, rows, meta),
            )
            kwargs, cache, scheduler = meta["engine_kwargs"], meta["kv_cache"], meta["resolved_scheduler_config"]
            self.device = str(meta["hardware"]["device_name"])
            self.model_id = str(meta["model"])
            self.tensor = int(kwargs["tensor_parallel_size"])
            self.blocks = int(cache["num_gpu_blocks"])
            self.engine = Engine(
                block_size=int(cache["block_size"]),
                max_num_seqs=int(scheduler["max_num_seqs"]),
                max_num_batched_tokens=int(scheduler["max_num_batched_tokens"]),
                max_model_len=int(kwargs["max_model_len"]),
                enable_prefix_caching=bool(cache["enable_prefix_caching"]),
                enable_chunked_prefill=bool(scheduler["enable_chunked_prefill"]),
                long_prefill_token_threshold=int(scheduler["long_prefill_token_threshold"]),
                scheduler_reserve_full_isl=bool(scheduler.get("scheduler_reserve_full_isl", True)),
                async_scheduling=bool(scheduler["async_scheduling"]),
                gpu_memory_utilization=float(cache["gpu_memory_utilization"]),
                generation_config="vllm",
            )
        except (KeyError, ValueError, TypeError, json.JSONDecodeError) as error:
            fail(f"this run cannot be read: {type(error).__name__} {error}", file=str(path))
        self.times: dict[str, Floats] = {
            "ttft_s": first - queued,
            "tpot_s": (last - first) / np.maximum(output - 1, 1),
            "e2e_s": last - queued,
        }


def _prompts(root: Path, name: str, rows: list[dict[str, str]], meta: dict[str, object]) -> TokenIds | None:
    """What a run's prompts say; one of the built-in run's data set has its prompts."""
    found = prompts_of(root, name, rows, root / f"{name}.requests.csv")
    own = _TABLES / f"{name}.meta.json"
    if found is None and own.is_file() and root != _TABLES:
        same = json.loads(read_text(own)).get("dataset_hash") == meta.get("dataset_hash")
        if same and meta.get("num_requests") == len(rows):
            path = _TABLES / f"{name}.requests.csv"
            return prompts_of(_TABLES, name, list(csv.DictReader(read_text(path).splitlines())), path)
    return found


def _known(kind: str, name: str, known: dict[str, str], path: Path) -> str:
    if name not in known:
        fail(f"no {kind} of the library is this", file=str(path), value=name, choices=known)
    return known[name]


def run_points(root: Path, name: str) -> Iterator[Point]:
    """A run with its measured tables, where there are some, and from the data sheet."""
    run = _Run(root, name)
    path = root / f"{name}.meta.json"
    model = load_model(_known("model", run.model_id.split("/")[-1], MODELS, path))
    chip = _known("chip", run.device, CHIPS, path)
    parallelism = Parallelism(tensor=run.tensor)
    given = _with_blocks(run.engine, run.blocks)
    for folder in _tables(root, run, name):
        oracle = load_tables(folder, model.layers)
        made = serve(model, chip, run.requests, engine=given, parallelism=parallelism, oracle=oracle)
        single = SINGLE if run.requests.content is not None else NONE
        yield from _compared(f"{name}, measured tables", run, made, FROM_TABLES, single)
    made = serve(model, chip, run.requests, engine=given, parallelism=parallelism)
    yield from _compared(f"{name}, data sheet", run, made, FROM_SHEET)
    room = capacity(model, load_chip(chip), run.engine, parallelism, load_runtime("vllm"))
    yield _point(f"{name}, data sheet", "KV blocks", "", run.blocks, room.blocks, BLOCKS)


def _with_blocks(engine: Engine, blocks: int) -> Engine:
    from dataclasses import replace

    return replace(engine, num_gpu_blocks=blocks)


def _tables(root: Path, run: _Run, name: str) -> list[Path]:
    """Folders of measured tables of the run's card and model."""
    found = []
    for meta in sorted(root.glob("*/meta.yaml")):
        content = read_yaml(meta).content
        if not isinstance(content, dict) or run.tensor != 1:
            continue
        same = content.get("gpu") == run.device or content.get("hardware") == name.split("__")[0]
        if same and content.get("model") == run.model_id and (meta.parent / "attention.csv").is_file():
            found.append(meta.parent)
    return found


def _compared(
    case: str,
    run: _Run,
    made: Service,
    bars: tuple[float, float, float],
    single: tuple[float | None, float | None, float | None] = NONE,
) -> Iterator[Point]:
    for (label, key), bar, most in zip(TIMES, bars, single, strict=True):
        ours, measured = made.array(key), run.times[key]
        yield _point(case, f"mean {label}", "s", float(measured.mean()), float(np.nanmean(ours)), bar)
        worst = float(np.nanquantile(np.abs(ours / measured - 1), 0.9))
        yield _point(case, f"90th percentile of errors of {label}", "%", 0.0, 100 * worst, None, absolute=most)


def _point(
    case: str,
    quantity: str,
    unit: str,
    reference: float,
    ours: float,
    relative: float | None,
    *,
    fitted: bool = False,
    absolute: float | None = None,
) -> Point:
    given = relative is not None or absolute is not None
    return Point(
        case=case,
        quantity=quantity,
        unit=unit,
        reference=reference,
        ours=ours,
        tolerance=Tolerance(relative=relative or 0.0, absolute=absolute or 0.0) if given else None,
        source="vllm-rtx4090-run" if "data sheet" in case or "tables" in case else "ml-energy",
        evidence="measured",
        fitted=fitted,
    )


def _steady(batch: int, prompt: int, output: int, waves: int = 4) -> Requests:
    """As many requests as a batch holds, some times over, all there at once."""
    number = waves * batch
    return Requests(np.zeros(number, np.int64), np.full(number, prompt), np.full(number, output))


def energy_points() -> Iterator[Point]:
    """Llama-3.1-8B on an H100 with so many requests at any time: joules of a token and mean power."""
    lines = [line for line in _ENERGY.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = [one for one in csv.DictReader(lines) if one["model"] == "llama-3.1-8b" and one["chip"] == "h100"]
    model = load_model("llama-3.1-8b")
    oracle = _oracle(model)
    for batch in ENERGY_BATCHES:
        named = {one["metric"]: one for one in rows if int(one["batch"]) == batch}
        joules, watts = named["J_per_token"], named["power_W"]
        requests = _steady(batch, int(joules["sequence"]), int(joules["decode"]))
        engine = Engine(max_num_seqs=batch, max_model_len=2048, num_gpu_blocks=2**15)
        figures = serve(model, "h100", requests, engine=engine, oracle=oracle).to_dict()
        case = f"Llama-3.1-8B, H100, {batch} at a time"
        for quantity, unit, row, key, bar in (
            ("energy of a token", "J", joules, "energy_J_per_output_token", JOULES),
            ("mean power", "W", watts, "average_power_W", WATTS),
        ):
            yield _point(case, quantity, unit, float(row["measured"]), float(figures[key]), bar, fitted=True)  # type: ignore[arg-type]


def _oracle(model: Model) -> SimulatedOracle:
    """Tables with few points: batches and contexts of steady serving."""
    grid = Grid(
        tokens=(1, 8, 64, 255, 512, 1024, 2048),
        sequences=(1, 8, 64, 256),
        contexts=(16, 128, 256, 512, 1024),
        chunks=(2, 64, 128, 150, 256, 512, 1024, 2048),
        pasts=(0, 128, 1024),
    )
    return SimulatedOracle(model=model, chip=load_chip("h100"), runtime=load_runtime("vllm"), grid=grid)
