"""History encoders, one paper a file."""

from rankloom.config import ArchitectureSpec

SEQUENCES: dict[str, ArchitectureSpec] = {
    "din": ArchitectureSpec(
        target="rankloom.sequence.din:DIN",
        title="Deep Interest Network: the history weighted by the candidate",
        paper="arXiv:1706.06978",
    ),
    "lmn": ArchitectureSpec(
        target="rankloom.sequence.lmn:LMN",
        title="Large Memory Network: the candidate reads what all histories left in a memory",
        paper="arXiv:2502.05558",
    ),
    "masked_mean": ArchitectureSpec(
        target="rankloom.sequence.masked_mean:MaskedMean",
        title="Mean over the history's events",
    ),
    "solar": ArchitectureSpec(
        target="rankloom.sequence.solar:SOLAR",
        title="A history's principal interests, read by softmax attention",
        paper="arXiv:2603.02561",
    ),
    "transformer": ArchitectureSpec(
        target="rankloom.sequence.transformer:Transformer",
        title="Self-attention over the history, read by the candidate",
        paper="arXiv:1808.09781",
    ),
}
"""Name in a run file -> history encoder."""

__all__ = ["SEQUENCES"]
