"""The bit-plane weight store: any precision of a model from one copy."""

from tierform.store.layout import CODECS, LAYOUTS
from tierform.store.precision import BlockBits, RowBits
from tierform.store.reader import Store, StoredTensor
from tierform.store.reader import open_store as open
from tierform.store.writer import PackOptions, pack_model, pack_tensors

__all__ = [
    "CODECS",
    "LAYOUTS",
    "BlockBits",
    "PackOptions",
    "RowBits",
    "Store",
    "StoredTensor",
    "open",
    "pack_model",
    "pack_tensors",
]
