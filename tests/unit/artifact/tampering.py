"""Changes to a copy of an artifact, with or without digests that fit them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from rankloom.artifact.verify import verify
from rankloom.errors import ArtifactError
from rankloom.tensor_files import read_tensors, write_tensors

WEIGHTS = "weights.safetensors"
VOCABULARIES = "vocabularies.safetensors"
GOLDEN = "golden.safetensors"


class Copy:
    """A copy that may be changed."""

    def __init__(self, artifact: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(artifact, folder)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def refused(self) -> str:
        """Give the one message of verifying."""
        with pytest.raises(ArtifactError) as caught:
            verify(self.folder)
        return str(caught.value)

    def change_json(self, name: str, change: Callable[[Any], object]) -> Copy:
        content = json.loads((self / name).read_text())
        change(content)
        (self / name).write_text(json.dumps(content))
        return self.signed()

    def change_tensors(self, name: str, change: Callable[[dict[str, Tensor]], object]) -> Copy:
        tensors = read_tensors(self / name)
        change(tensors)
        write_tensors(self / name, tensors)
        return self.signed()

    def signed(self) -> Copy:
        """Write digests and sizes that fit the files, as an attacker would."""
        path = self / "manifest.json"
        try:
            values = json.loads(path.read_text())
            for name, entry in values["files"].items():
                file = self.folder / name
                if len(name) < 100 and file.is_file():
                    content = file.read_bytes()
                    entry["sha256"] = hashlib.sha256(content).hexdigest()
                    entry["num_bytes"] = len(content)
            del values["digest"]
        except (ValueError, TypeError, KeyError, AttributeError):
            return self
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps({"digest": digest, **values}))
        return self


def flip(path: Path, at: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)
