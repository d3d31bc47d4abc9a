"""Every parser of the project as a fuzzing target: an input file's name, seeds, how it is read, what would be nonsense.

A target reads one file that was mutated (others beside it stand as they should) and goes on until the figures that the
file decides have been computed.  Binary formats with checksums have a `repair` that makes them right again, so that
what lies behind them is reached.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_seeds as seeds
from fuzz_target import Target
from fuzz_targets_wide import WIDE


def _library(shelf: str, *names: str) -> Callable[[], list[bytes]]:
    def read() -> list[bytes]:
        from tierform import library

        return [library.find(shelf, name).read_bytes() for name in names or library.names(shelf)]

    return read


def _units(path: Path) -> Any:
    from tierform.units import format_quantity, parse_quantity

    text = path.read_bytes().decode("utf-8", "replace")
    unit = {"0": "J/B", "1": "K", "2": "1", "3": "W/(m*K)", "4": "Hz"}.get(text[:1], "s")
    value = parse_quantity(text[1:], unit, key="key")
    format_quantity(value, unit)
    return value


def _yaml(path: Path) -> Any:
    from tierform.files import read_yaml

    return read_yaml(path).content and None


def _json(path: Path) -> Any:
    from tierform.files import read_json

    return read_json(path).content and None


def _chip(path: Path) -> Any:
    from tierform.chip.description import load_chip

    chip = load_chip(path)
    sizes = [chip.die_size_m(die) for die in range(len(chip.package.dies))]
    return chip.area_m2, sizes, len(chip.tiles), len(chip.assumptions())


def _component(path: Path) -> Any:
    from tierform.chip.description import load_component
    from tierform.errors import TierformError

    part = load_component("x", 2, str(path))
    found = [part.area_m2, part.leakage_W(330.0), len(part.assumptions())]
    for operator in seeds.operators():
        try:
            cost = part.cost(operator) if part.supports(operator) else None
        except TierformError:
            continue
        found.append(cost and (cost.latency_s, cost.energy_J))
    return found


def _memory(path: Path) -> Any:
    from tierform.memory import standard

    standard._document.cache_clear()
    return _dram_figures(standard.read_dram(path, None, "x", {}))


def _cxl(path: Path) -> Any:
    from tierform.files import read_yaml
    from tierform.memory.cxl import read_cxl

    device: Any = read_cxl("x", read_yaml(path), 1, {})
    return device.capacity_B, device.peak_bandwidth_B_per_s


def _dram_figures(spec: Any) -> Any:
    from tierform.memory.device import MemoryDevice

    device: Any = MemoryDevice(spec, 1)
    return device.capacity_B, device.peak_bandwidth_B_per_s, device.effective_bandwidth_B_per_s("stream")


def _dramsim(path: Path) -> Any:
    from tierform.compat.dramsim.configuration import read_ini

    return _dram_figures(read_ini(path))


def _dram_trace(path: Path) -> Any:
    from tierform.compat.dramsim.trace import read_trace

    return read_trace(path)


def _ramulator_trace(path: Path) -> Any:
    from tierform.compat.ramulator import parse_trace
    from tierform.files import read_text
    from tierform.memory.standard import load_dram

    return parse_trace(read_text(path), load_dram("ddr4"), str(path))


def _model_file(path: Path) -> Any:
    return _model_figures(path)


def _model_config(path: Path) -> Any:
    return _model_figures(path)


def _model_figures(path: Path) -> Any:
    from tierform.workload import load_model

    model = load_model(path)
    return model.parameters, model.active_parameters, model.layers, model.hidden_size


def _mapping(path: Path) -> Any:
    from tierform.mapping import load_mapping

    return load_mapping(path, *seeds.chip_and_workload())


def _job(path: Path) -> Any:
    from tierform.simulation.job_file import load_job

    job = load_job(path)
    return hash(job) and [job.task, job.parallelism, job.micro_batches]


def _runtime(path: Path) -> Any:
    from tierform.simulation.runtime import load_runtime

    return load_runtime(path)


def _scalesim_config(path: Path) -> Any:
    from tierform.compat.scalesim.files import read_configuration

    return read_configuration(path)


def _scalesim_topology(path: Path) -> Any:
    from tierform.compat.scalesim.accounting import scale_sim
    from tierform.compat.scalesim.files import read_configuration, read_topology

    configuration = path.parent / "ok.cfg"
    configuration.write_bytes(seeds.scalesim_config()[0])
    layers, array = read_topology(path), read_configuration(configuration)
    small = [layer for layer in layers if layer.m * layer.n * layer.k * layer.count < 10**7]
    return layers, [scale_sim(layer, array).figures for layer in small[:3]]


def _booksim(path: Path) -> Any:
    from tierform.compat.booksim import read_config

    (path.parent / "a.net").write_bytes(seeds.anynet()[0])
    return read_config(path).topology.routers


def _anynet(path: Path) -> Any:
    from tierform.compat.booksim_network import read_network_file

    return len(read_network_file(path).name)


def _hotspot(changed: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        from tierform.compat.hotspot import run as hotspot

        folder = path.parent
        for name, content in seeds.HOTSPOT.items():
            if name != path.name:
                (folder / name).write_text(content)
        stacked = changed in ("a.lcf", "a.materials")
        case = hotspot.load(
            folder / ("b.ptrace" if stacked else "a.ptrace"),
            configuration=folder / "a.config",
            floorplan=None if stacked else folder / "a.flp",
            layers=folder / "a.lcf" if stacked else None,
            materials=folder / "a.materials" if stacked else None,
        )
        cells = getattr(case, "grid", None)
        if cells is not None and math.prod(cells) > 4096:
            return None
        return dict(hotspot.run(case).temperature_K)

    return read


def _tune(path: Path) -> Any:
    from tierform.tuning.config import load_config

    (path.parent / "winds.csv").write_bytes(seeds.series()[0])
    file = load_config(path)
    file.rule.make(100)
    return file.model_copy(update={"data": None})


def _series(path: Path) -> Any:
    from tierform.tuning.tables import read_series, series_samples

    series = read_series(path)
    return series_samples(series, 2, slice(3, 8)) if len(series) > 9 else series


def _records(path: Path) -> Any:
    from tierform.tuning.records import read_records

    return read_records(path, gaps=("?",))


def _checkpoint(path: Path) -> Any:
    seeds.resume(path)


def _samples(path: Path) -> Any:
    from tierform.chip.gpu.samples import read_samples

    return read_samples(path, "x")


def _rows(path: Path) -> Any:
    from tierform.numerics.tables import load_rows

    return [len(row) for row in load_rows(str(path), "train")]


def _noise(path: Path) -> Any:
    from tierform.numerics.noise import load_noise

    return len(load_noise(path).sources)


def _materials(path: Path) -> Any:
    from tierform.thermal.materials_file import MaterialsFile

    return MaterialsFile.read(path)


def _store(path: Path) -> Any:
    from tierform.store.reader import Store
    from tierform.store.unpack import metadata_of
    from tierform.store.windows import Window

    with Store(path, threads=1) as opened:
        metadata_of(opened)
        for name in opened:
            opened.codes(name)
        window = Window(opened, 4)
        window.read(0, min(window.size, 5000))
        opened.verify()


def _safetensors(path: Path) -> Any:
    from tierform.store.safetensors_file import open_model

    for one in open_model(path):
        for tensor in one.tensors:
            one.content(tensor).tobytes()
        one.close()


def _range(path: Path) -> Any:
    from tierform.store.server import parse_range

    text = path.read_bytes().decode("latin-1")
    found = parse_range(text, 1000)
    return found and (found[0], found[1])


def _range_nonsense(found: Any) -> str | None:
    return None if found is None or 0 <= found[0] < found[1] <= 1000 else f"the range {found}"


def _with_digest(content: bytes) -> bytes:
    import hashlib

    from tierform.tuning.checkpoint import MAGIC

    payload = content.partition(b"\n")[2]
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def _with_checksums(content: bytes) -> bytes:
    from tierform.store.checksum import xxh64

    if len(content) < 128:
        return content
    whole = bytearray(content)
    struct.pack_into("<Q", whole, 16, len(whole))
    offset, size = struct.unpack_from("<QQ", whole, 24)
    if offset + size <= len(whole):
        struct.pack_into("<Q", whole, 40, xxh64(bytes(whole[offset : offset + size])))
    struct.pack_into("<Q", whole, 120, xxh64(bytes(whole[:120])))
    return bytes(whole)


_HOTSPOT_FILES = {"hotspot-config": "a.config", "hotspot-floorplan": "a.flp", "hotspot-power": "a.ptrace"}
_HOTSPOT_FILES |= {"hotspot-layers": "a.lcf", "hotspot-materials": "a.materials"}

TARGETS: dict[str, Target] = {
    "units": Target("units.txt", lambda: seeds.UNITS, _units),
    "yaml": Target("any.yaml", lambda: seeds.YAML, _yaml),
    "json": Target("any.json", lambda: seeds.JSON, _json),
    "chip": Target("chip.yaml", _library("chips", "atleus", "a100", "haima", "atleus-2.5d", "tpu-3d"), _chip),
    "component": Target("part.yaml", _library("components"), _component),
    "memory": Target("memory.yaml", _library("memories", "hbm2", "ddr5", "lpddr5", "gddr6"), _memory),
    "cxl": Target("cxl.yaml", _library("memories", "cxl-ddr5-x8", "cxl3-ddr5-x8"), _cxl),
    "model": Target("model.yaml", _library("models"), _model_file),
    "config.json": Target("config.json", lambda: seeds.configurations(), _model_config),
    "mapping": Target("mapping.yaml", lambda: seeds.mappings(), _mapping),
    "job": Target("job.yaml", lambda: seeds.JOBS, _job),
    "runtime": Target("runtime.yaml", _library("runtimes"), _runtime),
    "noise": Target("noise.yaml", _library("noise"), _noise),
    "materials": Target("materials.yaml", _library("processes", "materials"), _materials),
    "samples": Target("samples.csv", lambda: seeds.SAMPLES, _samples),
    "rows": Target("rows.jsonl", lambda: seeds.ROWS, _rows),
    "dramsim": Target("dram.ini", lambda: seeds.DRAMSIM, _dramsim),
    "dram-trace": Target("dram.trace", lambda: seeds.DRAM_TRACE, _dram_trace),
    "ramulator-trace": Target("ram.trace", lambda: seeds.RAMULATOR_TRACE, _ramulator_trace),
    "scalesim-config": Target("x.cfg", lambda: seeds.scalesim_config(), _scalesim_config),
    "scalesim-topology": Target("x.csv", lambda: seeds.SCALESIM_TOPOLOGY, _scalesim_topology),
    "booksim": Target("x.cfg", lambda: seeds.BOOKSIM, _booksim),
    "anynet": Target("x.net", lambda: seeds.anynet(), _anynet),
    **{
        name: Target(file, lambda file=file: [seeds.HOTSPOT[file].encode()], _hotspot(file))
        for name, file in _HOTSPOT_FILES.items()
    },
    "tune": Target("tune.yaml", lambda: seeds.TUNE, _tune),
    "series": Target("series.csv", lambda: seeds.series(), _series),
    "records": Target("records.csv", lambda: seeds.RECORDS, _records),
    "checkpoint": Target("run.tft", lambda: seeds.checkpoints(), _checkpoint, _with_digest),
    "checkpoint-forged": Target("run.tft", lambda: [bytes([one]) for one in range(32)], _checkpoint, seeds.forge),
    "store": Target("x.tfs", lambda: seeds.stores(), _store),
    "store-mended": Target("x.tfs", lambda: seeds.stores(), _store, _with_checksums),
    "safetensors": Target("x.safetensors", lambda: seeds.safetensors(), _safetensors),
    "range": Target("range.txt", lambda: seeds.RANGES, _range, nonsense=_range_nonsense),
    **WIDE,
}
