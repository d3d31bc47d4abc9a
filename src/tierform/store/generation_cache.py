"""The plane KV cache as a cache of the transformers library: keys and values kept as compressed bit planes.

``model.generate(..., past_key_values=PlaneCache())`` keeps each layer's keys and values in :class:`PlaneKVCache`, one
for each sequence of the batch, and makes ordinary tensors of them for the layer that asks, for as long as it needs
them: exact, or at fewer bits.  What stays in memory is the compressed planes and the tokens that do not fill a group
yet.  Beam search copies no full group (they are shared), cropping cuts one group at most.
Limits: bf16, fp16 and fp32 models; layers with attention (recurrent ones have no keys); every step decompresses the
whole cache, on the CPU, so it saves memory and costs time; sliding windows keep all tokens (the model masks them).
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, DynamicLayer

from tierform.errors import fail
from tierform.store.elements import ELEMENTS
from tierform.store.kvcache import ELEMENTS as KEPT
from tierform.store.kvcache import PlaneKVCache, check_bits

_ELEMENT = {getattr(torch, one.torch): one for one in ELEMENTS if one.name in KEPT}


class PlaneLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values."""

    def __init__(self, key_bits: int | None, value_bits: int | None, group_tokens: int, level: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bits = (key_bits, value_bits)
        self._group_tokens, self._level = group_tokens, level
        self._rows: list[tuple[PlaneKVCache, PlaneKVCache]] = []  # (keys, values) of each sequence
        self._shapes = ((0, 0), (0, 0))  # heads and channels of one, of keys and of values

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Begin with the first states' type and shape."""
        self.dtype, self.device = key_states.dtype, key_states.device
        if self.dtype not in _ELEMENT or value_states.dtype != self.dtype:
            fail("a plane cache keeps bf16, fp16 or fp32", value=(str(self.dtype), str(value_states.dtype)))
        element = _ELEMENT[self.dtype]
        for bits in self._bits:
            check_bits(element, bits)

        def empty(states: torch.Tensor) -> PlaneKVCache:
            channels = states.shape[1] * states.shape[3]
            return PlaneKVCache(channels, element.name, group_tokens=self._group_tokens, level=self._level)

        self._rows = [(empty(key_states), empty(value_states)) for _ in range(key_states.shape[0])]
        self._shapes = tuple((one.shape[1], one.shape[3]) for one in (key_states, value_states))  # type: ignore[assignment]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add [batch, heads, tokens, channels] of keys and values; all of both, as they are read at the bits chosen."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if key_states.shape[0] != len(self._rows):
            fail(f"the cache holds {len(self._rows)} sequences", key="batch", value=key_states.shape[0])
        whole = []
        for which, states in enumerate((key_states, value_states)):
            heads, channels = self._shapes[which]
            tokens = states.transpose(1, 2).reshape(states.shape[0], states.shape[2], heads * channels)
            for row, added in zip(self._rows, tokens, strict=True):
                row[which].append_torch(added)
            read = torch.stack([row[which].read_torch(bits=self._bits[which]) for row in self._rows])
            whole.append(read.view(len(self._rows), -1, heads, channels).transpose(1, 2).to(self.device))
        return whole[0], whole[1]

    def get_seq_length(self) -> int:
        """Tokens kept."""
        return len(self._rows[0][0]) if self._rows else 0

    def reset(self) -> None:
        """Forget everything."""
        self._rows, self.is_initialized = [], False

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens; the count is negative, as the library asks."""
        if tokens_to_remove > 0:
            fail("tokens are removed with a negative count", key="crop", value=tokens_to_remove)
        left = max(0, self.get_seq_length() + tokens_to_remove)
        for row in self._rows:
            for one in row:
                one.crop(left)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Sequence i becomes a copy of sequence ``beam_idx[i]``."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these sequences (a mask, or numbers that may repeat), in this order."""
        if not self._rows:
            return
        chosen = torch.arange(len(self._rows))[indices.cpu()].tolist()
        self._rows = [(self._rows[one][0].copy(), self._rows[one][1].copy()) for one in chosen]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times, one after the other."""
        self.batch_select_indices(torch.arange(len(self._rows)).repeat_interleave(repeats))

    def offload(self) -> None:
        """Nothing to do: planes are in main memory always."""

    def prefetch(self) -> None:
        """Nothing to do: planes are in main memory always."""

    @property
    def stored_B(self) -> int:
        """Bytes of planes and waiting tokens; a group that several beams share counts for each."""
        return sum(one.stored_B for row in self._rows for one in row)

    @property
    def plain_B(self) -> int:
        """Bytes of the same keys and values as ordinary tensors."""
        return sum(one.plain_B for row in self._rows for one in row)

    @property
    def bytes_read(self) -> int:
        """Stored bytes read so far by the sequences kept."""
        return sum(one.bytes_read for row in self._rows for one in row)


class PlaneCache(Cache):
    """Give it to ``generate`` or to a model's forward as ``past_key_values``."""

    def __init__(
        self,
        *,
        key_bits: int | None = None,
        value_bits: int | None = None,
        group_tokens: int = 256,
        level: int = 3,
    ) -> None:
        """`key_bits` and `value_bits` are what is read back (None: everything, exact).

        `group_tokens`, a multiple of 16 (of 32 for fp32), are compressed together with zstd at `level`.  Impossible
        values are refused when the first keys arrive and tell their type.
        """

        def build() -> PlaneLayer:
            return PlaneLayer(key_bits, value_bits, group_tokens, level)

        super().__init__(layer_class_to_replicate=build)  # type: ignore[arg-type]

    @property
    def stored_B(self) -> int:
        """Bytes kept, over all layers."""
        return sum(layer.stored_B for layer in self.layers if isinstance(layer, PlaneLayer))

    @property
    def plain_B(self) -> int:
        """Bytes that ordinary tensors of the same content take."""
        return sum(layer.plain_B for layer in self.layers if isinstance(layer, PlaneLayer))
