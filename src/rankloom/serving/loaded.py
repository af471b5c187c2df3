"""An artifact in memory, and what front ends are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rankloom.serving.engine import Engine
from rankloom.serving.page.offered import few, groups_of_run


@dataclass(frozen=True)
class Loaded:
    """An artifact that can be served."""

    engine: Engine
    folder: Path
    """Where it stands, links resolved."""

    @property
    def digest(self) -> str:
        """Its identity."""
        return self.engine.digest

    def offer(self, name: str) -> dict[str, Any]:
        """Say what a front end needs to decode requests for it."""
        manifest = self.engine.ranker.manifest
        values = manifest.to_dict()
        return {
            "name": name,
            "digest": self.digest,
            "folder": str(self.folder),
            "vocabularies": list(manifest.vocabularies),
            "features": values["features"],
            "roles": values["roles"],
            "tasks": values["tasks"],
            "unified": values["embedder"]["config"]["unified"],
            "examples": few([one.given() for one in self.engine.examples]),
            "groups": groups_of_run(manifest.run),
        }


def load(folder: Path, device: Literal["auto", "cpu", "cuda"]) -> Loaded:
    """Load an artifact that was verified.

    Raises:
        ArtifactError: It is damaged, or of another format.
    """
    return Loaded(Engine.load(folder, device=device), folder)
