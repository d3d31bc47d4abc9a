"""XXH64 of small byte strings: the header, the directory, index rows and attached files."""

from __future__ import annotations

import numpy as np


def xxh64(content: bytes | bytearray | memoryview) -> int:
    """XXH64 with seed 0 (Y. Collet's public specification) of any bytes."""
    from tierform.store.hashing import hash_bytes

    return int(hash_bytes(np.frombuffer(content, np.uint8)))
