"""How long a collective takes between GPUs of one node: rings over NVLink or PCIe, in the library's two protocols.

With n GPUs and a buffer of S bytes (of all-gather: the gathered result), a ring takes n - 1 steps and moves S (n-1)/n
bytes over each GPU's link, an all-reduce twice that; an all-reduce may take a tree of 2 log2(n) steps instead.  Each
step costs its latency, and bytes stream at a share of the link's bandwidth.  The low-latency protocol has short steps
and a small share (a flag travels with each word), the bulk protocol a long start and a large share:
t = launch + start + steps * step latency + bytes / (bandwidth * share).  The faster is taken.

A serving system brings kernels of its own for small all-reduces (`direct`): each GPU reads the buffers of all others
and adds them up (one shot), or a part of each, and then the finished parts (two shots).  Which is taken goes by GPUs
and bytes, as in vLLM (its source, read 2026): one shot between two GPUs, below 512 KiB among up to four and below 256
KiB among more, two shots (or kernels over symmetric memory, timed with them) above, and from 8 MiB on the library's
protocols, which are not faster there than those kernels with their most bytes.

Laws: R. Thakur, R. Rabenseifner, W. Gropp, Optimization of Collective Communication Operations in MPICH, IJHPCA 2005;
protocols: NVIDIA's NCCL documentation.  Limits: one node, all links alike, no contention with kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tierform.chip.gpu.parameters import DirectParameters, LinkParameters
from tierform.errors import fail

Array = NDArray[np.float64]
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")
# GPUs of the largest collective that was measured.
MOST_GPUS = 8
KIB = 1024
# The most bytes of such kernels, and of one shot among up to so many GPUs.
DIRECT_BELOW_B = 8 * KIB * KIB
ONE_SHOT = ((2, DIRECT_BELOW_B), (4, 512 * KIB), (MOST_GPUS, 256 * KIB))
FITTED = ("launch", "step", "share", "bulk_start", "bulk_step", "bulk_share")


@dataclass(frozen=True, slots=True)
class CollectiveModel:
    """Bandwidth per GPU and direction, and the library's figures on it, in the order of FITTED (seconds, shares)."""

    bandwidth_B_per_s: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, link: LinkParameters) -> CollectiveModel:
        """From a data file's section."""
        return cls(link.bandwidth.value, tuple(float(getattr(link, name).value) for name in FITTED))

    def seconds(self, kind: str, gpus: ArrayLike, size_B: ArrayLike) -> Array:
        """Time of a collective of `kind` among `gpus` GPUs over a buffer of `size_B` bytes on each."""
        if kind not in KINDS:
            fail("unknown collective", value=kind, choices=KINDS, fix=f"Known: {', '.join(KINDS)}.")
        n, size = np.asarray(gpus, dtype=np.float64), np.asarray(size_B, dtype=np.float64)
        launch, step, share, bulk_start, bulk_step, bulk_share = self.values
        passes = 2.0 if kind == "all_reduce" else 1.0
        steps = passes * (n - 1)
        if kind == "all_reduce":
            steps = np.minimum(steps, passes * np.log2(n))
        moved = passes * size * (n - 1) / n / self.bandwidth_B_per_s
        short = steps * step + moved / share
        bulk = bulk_start + steps * bulk_step + moved / bulk_share
        result: Array = launch + np.minimum(short, bulk)
        return result


def direct_s(p: DirectParameters, bandwidth_B_per_s: float, gpus: int, size_B: float) -> float:
    """Time of an all-reduce by kernels that read the others' memory; beyond their most bytes, of so many."""
    size_B, others = min(size_B, DIRECT_BELOW_B), gpus - 1
    below_B = next(limit for most, limit in ONE_SHOT if gpus <= most)
    read_s = others * min(size_B, below_B) / (bandwidth_B_per_s * p.share.value)
    one_s = float(p.start.value + (others - 1) * p.member.value + read_s)
    if size_B < below_B:
        return one_s
    read_s = 2 * others / gpus * size_B / (bandwidth_B_per_s * p.two_share.value)
    return max(one_s, float(p.two_start.value + (others - 1) * p.two_member.value + read_s))
