"""What bit planes gain by lossless compression: Gaussian bf16 weights, and keys and values of a model and made up.

Published by SmartQuant's successors: 25.2 % of the weights' footprint and 46.9 % of the KV cache's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tierform.studies.study import Table

WEIGHTS_SAVED, KV_SAVED = 0.252, 0.469


def lossless(seed: int, quick: bool) -> tuple[Table, float]:
    """Footprint of bf16 Gaussian weights: ordinary words and bit planes under zstd; the planes' saving."""
    from tierform.store.bench import gaussian_bf16
    from tierform.store.reader import Store
    from tierform.store.writer import PackOptions, _zstd, pack_tensors

    codes = gaussian_bf16(2**20 if quick else 2**22, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gauss.tfs"
        pack_tensors({"w": codes}, path, PackOptions(codec="zstd"), elements={"w": "bf16"})
        planes = 1 - path.stat().st_size / codes.nbytes
        with Store(path) as store:
            store.codes("w", 9)
            nine = store.count.planes_B / codes.nbytes
    words = 1 - len(_zstd().ZstdCompressor(level=3).compress(codes.tobytes())) / codes.nbytes
    rows = (
        ("words, zstd", 100 * words, None),
        ("bit planes, zstd, index and checksums included", 100 * planes, 100 * WEIGHTS_SAVED),
        ("bit planes, 9 of 16 read: bytes saved", 100 * (1 - nine), None),
    )
    note = "Gaussian weights of standard deviation 0.02 truncated to bf16; the published figure is for real weights."
    return Table("Lossless compression of weights", ("form", "saved (%)", "published (%)"), rows, note), planes


def synthetic_kv(tokens: int, channels: int) -> dict[str, Any]:
    """bf16 codes of three made-up caches: independent, with channel means, and with tokens that resemble the last."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((tokens, channels))
    means = 4 * rng.standard_normal(channels)
    walk = noise.copy()
    for token in range(1, tokens):
        walk[token] = 0.98 * walk[token - 1] + np.sqrt(1 - 0.98**2) * noise[token]
    made = {"independent": noise, "channel means": noise + means, "means, tokens correlated 0.98": walk + means}
    return {
        name: (one.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16) for name, one in made.items()
    }


def kv_table(planed: Any, windows: int) -> Table:
    """Lossless footprint of the run model's own keys and values in the plane KV cache."""
    import torch

    from tierform.store.kvcache import PlaneKVCache
    from tierform.store.writer import _zstd

    kept: dict[tuple[int, str], list[Any]] = {}
    handles = []
    for site in planed.sites:
        if site.kind in ("k_proj", "v_proj"):

            def keep(_: object, __: object, out: Any, site: Any = site) -> None:
                kept.setdefault((site.layer, site.kind), []).append(out.detach().reshape(-1, out.shape[-1]))

            handles.append(site.linear.register_forward_hook(keep))
    with torch.no_grad():
        for ids in planed.text.batches(planed.text.test, windows):
            planed.text.model(input_ids=ids)
    for handle in handles:
        handle.remove()
    rows: list[tuple[str, float, float, float | None]] = []
    plain = planes = words = 0
    for kind in ("k_proj", "v_proj"):
        size = stored = compressed = 0
        for (_, one), parts in kept.items():
            if one != kind:
                continue
            codes = torch.cat(parts).to(torch.bfloat16)
            cache = PlaneKVCache(codes.shape[1])
            cache.append_torch(codes)
            size, stored = size + cache.plain_B, stored + cache.stored_B
            compressed += len(_zstd().ZstdCompressor(level=3).compress(codes.view(torch.int16).numpy().tobytes()))
        rows.append(
            (
                {"k_proj": "keys", "v_proj": "values"}[kind],
                100 * (1 - compressed / size),
                100 * (1 - stored / size),
                None,
            )
        )
        plain, planes, words = plain + size, planes + stored, words + compressed
    rows.append(("both", 100 * (1 - words / plain), 100 * (1 - planes / plain), 100 * KV_SAVED))
    for name, codes in synthetic_kv(1024, 256).items():
        cache = PlaneKVCache(codes.shape[1])
        cache.append(codes)
        small = len(_zstd().ZstdCompressor(level=3).compress(codes.tobytes()))
        saved = 100 * (1 - cache.stored_B / cache.plain_B)
        rows.append((f"made up: {name}", 100 * (1 - small / codes.nbytes), saved, None))
    head = (
        "cache",
        "token-major words, zstd: saved (%)",
        "planes with exponent differences: saved (%)",
        "published (%)",
    )
    note = (
        "This model's own keys and values as bf16, and made-up ones; the published figure is for large models on long "
        "texts, and needs channels with a mean of their own and tokens that resemble each other."
    )
    return Table("Lossless compression of the KV cache", head, tuple(rows), note)
