"""From an interaction's readout to one logit per task."""

from rankloom.config import ArchitectureSpec

HEADS: dict[str, ArchitectureSpec] = {
    "shared_bottom": ArchitectureSpec(
        target="rankloom.heads.shared_bottom:SharedBottom",
        title="A shared network, then a tower per task",
        paper="doi:10.1023/A:1007379606734",
    ),
}
"""Name in a run file -> head."""

__all__ = ["HEADS"]
