"""DCN V2: explicit feature crosses, full-rank or a mixture of low-rank experts, with an MLP.

Paper: Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, arXiv:2008.13535.
Layer: x' = x_0 * (W x + b) + x (eq. 1); low rank: W x = sum_i G_i(x) U_i g(C_i g(V_i^T x)) (eq. 4).
Differs from the paper: gates are a layer's own, which the paper leaves open; one expert has none.
Cost: M * (cross + D) + deep + shifts parameters; M * cross + deep multiply-adds per row.
Shapes: B rows, D width of the concatenated features, M cross layers, E low-rank experts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.init import xavier_uniform_
from rankloom.layers.linear import linear
from rankloom.layers.mlp import MLP, Activation, NormKind
from rankloom.layers.protocols import Candidates, Layout, Takes
from rankloom.ops import softmax_fp32

Gate = Literal["softmax", "sigmoid"]


class DCNv2Config(Config):
    """Hyper-parameters of `DCNv2` (arXiv:2008.13535)."""

    kind: Literal["dcn_v2"] = "dcn_v2"
    """Name of the architecture."""
    num_layers: PositiveInt = 3
    """Cross layers; the degree of the crosses is one more."""
    rank: PositiveInt | None = None
    """Rank of each expert's matrices; the paper advises a quarter of the input's width. Without it
    the matrices have full rank and the next three options say nothing."""
    num_experts: PositiveInt = 4
    """Low-rank experts that a gate mixes."""
    gate: Gate = "softmax"
    """How the gate turns its outputs into weights."""
    expert_activation: Literal["tanh", "relu", "none"] = "tanh"
    """Activation in the low-rank space; `none` leaves out the inner matrix C too, as in eq. 2."""
    structure: Literal["stacked", "parallel"] = "parallel"
    """Whether the MLP follows the crosses or stands beside them."""
    hidden_dims: tuple[PositiveInt, ...] = (400, 400, 400)
    """Widths of the MLP; empty for crosses alone."""
    activation: Activation = "relu"
    """Activation of the MLP."""
    norm: NormKind = "none"
    """Norm before each activation of the MLP; `batch` mixes rows while training."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an element after each hidden layer, rounded to 1/256."""


class DCNv2State(NamedTuple):
    """Where the crosses and the MLP stand."""

    x0: Tensor
    """(B, D). The input, which every cross layer multiplies with."""
    cross: Tensor
    """(B, D). What the last cross layer gave."""
    deep: Tensor
    """(B, width). What the MLP reads next."""


class FullRankCross(nn.Module):
    """W x + b with a full matrix."""

    def __init__(self, dim: int, *, generator: Generator) -> None:
        super().__init__()
        self.projection = linear(dim, dim, generator=generator)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give (B, D), to be multiplied with the input."""
        y: Tensor = self.projection(x_BD)
        return y


class LowRankCross(nn.Module):
    """sum_i G_i(x) U_i g(C_i g(V_i^T x)) + b: a gated mixture of low-rank matrices.

    The gates are applied in the low-rank space, so that all U_i are one matmul.
    """

    def __init__(self, dim: int, config: DCNv2Config, *, generator: Generator) -> None:
        super().__init__()
        assert config.rank is not None
        experts, rank = config.num_experts, config.rank
        inner = experts * rank
        self.num_experts = experts
        self.uses_softmax = config.gate == "softmax"
        self.down = nn.Parameter(torch.empty(inner, dim))
        self.up = nn.Parameter(torch.empty(dim, inner))
        self.bias = nn.Parameter(torch.zeros(dim))
        xavier_uniform_(self.down, fan_in=dim, fan_out=rank, generator=generator)
        xavier_uniform_(self.up, fan_in=rank, fan_out=dim, generator=generator)
        self.activation = {"tanh": nn.Tanh, "relu": nn.ReLU, "none": nn.Identity}[
            config.expert_activation
        ]()
        self.core: nn.Parameter | None = None
        if config.expert_activation != "none":
            self.core = nn.Parameter(torch.empty(experts, rank, rank))
            xavier_uniform_(self.core, fan_in=rank, fan_out=rank, generator=generator)
        self.gate = None
        if experts > 1:
            self.gate = linear(dim, experts, bias=False, generator=generator)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give (B, D), to be multiplied with the input."""
        h_BER = nn.functional.linear(x_BD, self.down).unflatten(1, (self.num_experts, -1))
        h_BER = self.activation(h_BER)
        if self.core is not None:
            h_BER = self.activation(torch.bmm(h_BER.transpose(0, 1), self.core).transpose(0, 1))
        bias: Tensor = self.bias
        if self.gate is not None:
            scores_BE = self.gate(x_BD)
            if self.uses_softmax:
                gates_BE = softmax_fp32(scores_BE)
            else:
                gates_BE = torch.sigmoid(scores_BE)
                # Each expert carries the bias, and these gates do not sum to one.
                bias = gates_BE.sum(dim=1, keepdim=True) * bias
            h_BER = h_BER * gates_BE[:, :, None]
        return nn.functional.linear(h_BER.flatten(1), self.up) + bias


class _CrossLayer(nn.Module):
    """x_0 * cross(x) + x as a step of the state."""

    def __init__(self, cross: nn.Module, *, feeds_deep: bool) -> None:
        super().__init__()
        self.cross = cross
        self.feeds_deep = feeds_deep

    def forward(self, state: DCNv2State) -> DCNv2State:
        x_BD = torch.addcmul(state.cross, state.x0, self.cross(state.cross))
        return DCNv2State(state.x0, x_BD, x_BD if self.feeds_deep else state.deep)


class _DeepLayer(nn.Module):
    """A hidden layer as a step of the state."""

    def __init__(self, hidden: nn.Module) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, state: DCNv2State) -> DCNv2State:
        return DCNv2State(state.x0, state.cross, self.hidden(state.deep))


class DCNv2(nn.Module):
    """Cross layers, then (or beside them) the layers of an MLP.

    Example:
        >>> DCNv2Config(rank=16, num_experts=2, structure="stacked").rank
        16
    """

    Config: ClassVar[type[Config]] = DCNv2Config
    takes: ClassVar[Takes] = "flat"
    candidates: ClassVar[Candidates] = "independent"

    def __init__(self, config: DCNv2Config, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        assert layout.tokens is not None
        dim = layout.tokens.dim
        self.config, self.dim = config, dim
        self.is_stacked = config.structure == "stacked"
        crosses = [
            _CrossLayer(
                FullRankCross(dim, generator=generator)
                if config.rank is None
                else LowRankCross(dim, config, generator=generator),
                feeds_deep=self.is_stacked,
            )
            for _ in range(config.num_layers)
        ]
        mlp = MLP(
            dim,
            config.hidden_dims,
            activation=config.activation,
            norm=config.norm,
            dropout=config.dropout,
            generator=generator,
        )
        self.layers = nn.ModuleList([*crosses, *map(_DeepLayer, mlp.layers)])
        self.is_parallel = not self.is_stacked and bool(config.hidden_dims)
        self.out_dim = dim + mlp.out_dim if self.is_parallel else mlp.out_dim
        self.auxiliary_after: tuple[int, ...] = ()

    def cost_letters(self) -> dict[str, int]:
        """Give a cross layer's weights and the MLP's sums, which the `Cost:` line names."""
        config, dim = self.config, self.dim
        widths = (dim, *config.hidden_dims)
        cross = dim * dim
        if config.rank is not None:
            core = 0 if config.expert_activation == "none" else config.rank**2
            gate = dim if config.num_experts > 1 else 0
            cross = config.num_experts * (2 * dim * config.rank + core + gate)
        return {
            "M": config.num_layers,
            "cross": cross,
            "deep": sum(a * b for a, b in pairwise(widths)),
            "shifts": sum(config.hidden_dims) * (1 if config.norm == "none" else 3),
        }

    def embed_in(self, tokens: Tensor) -> DCNv2State:
        """Take (B, D) as the first state."""
        return DCNv2State(tokens, tokens, tokens)

    def features(self, state: DCNv2State) -> Tensor:
        """Give (B, 1, width of the readout)."""
        return self.readout(state)[:, None]

    def readout(self, state: DCNv2State) -> Tensor:
        """Give (B, out_dim): the MLP's output, with the crosses beside it if parallel."""
        if self.is_parallel:
            return torch.cat((state.cross, state.deep), dim=1)
        return state.deep if self.is_stacked else state.cross
