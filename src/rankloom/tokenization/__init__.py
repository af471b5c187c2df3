"""From features to the input of an interaction: tokens by rate, fields, or one flat vector."""

from rankloom.config import ArchitectureSpec

TOKENIZATIONS: dict[str, ArchitectureSpec] = {
    "fields": ArchitectureSpec(
        target="rankloom.tokenization.fields:Fields",
        title="One vector per feature, all of one width, as they are",
    ),
    "flat": ArchitectureSpec(
        target="rankloom.tokenization.flat:Flat",
        title="All features side by side in one vector",
    ),
    "per_feature": ArchitectureSpec(
        target="rankloom.tokenization.per_feature:PerFeature",
        title="One token per feature, each projected by its own weights",
    ),
    "semantic_groups": ArchitectureSpec(
        target="rankloom.tokenization.semantic_groups:SemanticGroups",
        title="One token per group of features, and a global token of all groups",
        paper="arXiv:2602.06563",
    ),
}
"""Name in a run file -> tokenization."""

__all__ = ["TOKENIZATIONS"]
