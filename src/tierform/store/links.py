"""Which links of a model folder are followed: those within the folder, and those into the Hub cache's blobs.

A folder from somewhere else may hold a link to any file of this machine; packed and served, that file would be
published.  The Hugging Face cache keeps a model as ``models--owner--name/snapshots/REVISION/file``, each a link into
``models--owner--name/blobs``; these are followed.
"""

from __future__ import annotations

import os
from pathlib import Path

from tierform.errors import fail


def followed(path: Path, folder: Path) -> Path:
    """The path, if it lies in the folder or in its cache's blobs once every link is followed; TierformError if not."""
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    places = [home]
    if home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--"):
        places.append(home.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in places):
        fail(
            "this link leaves the model's folder",
            file=str(path),
            value=str(real),
            fix="Copy the file into the folder if it belongs to the model; remove the link if not.",
        )
    return path
