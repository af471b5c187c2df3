"""History encoders, one paper a file."""

from rankloom.config import ArchitectureSpec

SEQUENCES: dict[str, ArchitectureSpec] = {
    "din": ArchitectureSpec(
        target="rankloom.sequence.din:DIN",
        title="Deep Interest Network: the history weighted by the candidate",
        paper="arXiv:1706.06978",
    ),
    "masked_mean": ArchitectureSpec(
        target="rankloom.sequence.masked_mean:MaskedMean",
        title="Mean over the history's events",
    ),
    "transformer": ArchitectureSpec(
        target="rankloom.sequence.transformer:Transformer",
        title="Self-attention over the history, read by the candidate",
        paper="arXiv:1808.09781",
    ),
}
"""Name in a run file -> history encoder."""

__all__ = ["SEQUENCES"]
