"""Interaction backbones, one paper a file."""

from rankloom.config import ArchitectureSpec

INTERACTIONS: dict[str, ArchitectureSpec] = {
    "dcn_v2": ArchitectureSpec(
        target="rankloom.interaction.dcn_v2:DCNv2",
        title="DCN V2: cross layers, full-rank or a mixture of low-rank experts, with an MLP",
        paper="arXiv:2008.13535",
    ),
    "linear": ArchitectureSpec(
        target="rankloom.interaction.linear:Linear",
        title="Logistic regression on the concatenated features",
        paper="doi:10.1145/1242572.1242643",
    ),
    "mlp": ArchitectureSpec(
        target="rankloom.interaction.mlp:DeepNetwork",
        title="Multi-layer perceptron on the concatenated features (DNN)",
        paper="arXiv:1606.07792",
    ),
    "rankmixer": ArchitectureSpec(
        target="rankloom.interaction.rankmixer:RankMixer",
        title="RankMixer, dense: token mixing and a feed-forward network per token",
        paper="arXiv:2507.15551",
    ),
    "tokenmixer_large": ArchitectureSpec(
        target="rankloom.interaction.tokenmixer_large:TokenMixerLarge",
        title="TokenMixer-Large, dense: mix and revert with SwiGLU per token, pre-norm, deep",
        paper="arXiv:2602.06563",
    ),
}
"""Name in a run file -> architecture."""

__all__ = ["INTERACTIONS"]
