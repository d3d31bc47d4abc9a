"""DINOv2-small from an ONNX file, as a folder that transformers' ``Dinov2Model`` loads.

Vectors keep their names in the ONNX file; matrices were turned and renamed by the exporter, and are found again as the
second input of the product of their layer.  Position embeddings were split into that of the class token and those of
the grid of patches, which the exported graph resizes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tierform.compression.checkpoints.onnx_weights import read_onnx
from tierform.errors import fail

_PREFIX = "backbone."


def convert_dinov2(path: Path, folder: Path) -> Path:
    """Write the backbone of an ONNX file as a Hugging Face folder."""
    import torch

    from tierform.compression.checkpoints.folder import write_folder

    file = read_onnx(path)
    tensors: dict[str, Any] = {
        name.removeprefix(_PREFIX): torch.from_numpy(values.copy())
        for name, values in file.tensors.items()
        if name.startswith(_PREFIX)
    }
    for node in file.nodes:
        if node.kind == "MatMul" and node.name.startswith("/backbone/") and node.inputs[1] in file.tensors:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{name}.weight"] = torch.from_numpy(file.tensors[node.inputs[1]].T.copy())
    held = {node.name: node.inputs[0] for node in file.nodes if node.inputs and node.inputs[0] in file.tensors}
    place, grid = (held.get(f"/backbone/embeddings/{name}") for name in ("Concat_6", "Reshape_1"))
    positions = None
    if place is not None and grid is not None:
        parts = [
            torch.from_numpy(file.tensors[name].reshape(1, -1, file.tensors[place].shape[-1])) for name in (place, grid)
        ]
        positions = tensors["embeddings.position_embeddings"] = torch.cat(parts, 1)
    patches = tensors.get("embeddings.patch_embeddings.projection.weight")
    if patches is None or positions is None:
        fail("the file does not hold a DINOv2 backbone", file=str(path))
    hidden, _, size, _ = patches.shape
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))
    side = round((positions.shape[1] - 1) ** 0.5)
    tensors.setdefault("embeddings.mask_token", torch.zeros(1, hidden))
    config = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "mlp_ratio": tensors["encoder.layer.0.mlp.fc1.bias"].shape[0] // hidden,
        "patch_size": size,
        "image_size": side * size,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "layerscale_value": 1.0,
        "torch_dtype": "float32",
    }
    preprocessor = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    texts = {"config.json": json.dumps(config, indent=1), "preprocessor_config.json": json.dumps(preprocessor)}
    return write_folder(folder, tensors, texts)
