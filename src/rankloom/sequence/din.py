"""Deep Interest Network: each event weighted by how much it says about the candidate.

Paper: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", arXiv:1706.06978.
Layer: v = sum_l a(e_l, c) e_l (eq. 3); a is an MLP on [e, c, e - c, e * c], weights unnormalised.
Differs from the paper: e - c and e * c stand for its outer product, as in the authors' code.
Cost: 4 * D * A + P + Q parameters; L * (D * A + P + D) + D * A multiply-adds per row.
Shapes: B rows, L events of width D, A first hidden width; P, Q: other matrices, and offsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import ConfigError
from rankloom.layers.linear import linear
from rankloom.layers.protocols import Inputs, SequenceLayout
from rankloom.ops import softmax_fp32

UnitActivation = Literal["prelu", "dice", "sigmoid"]


class DINConfig(Config):
    """Hyper-parameters of `DIN` (arXiv:1706.06978)."""

    kind: Literal["din"] = "din"
    """Name of the encoder."""
    hidden_dims: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (80, 40)
    """Hidden widths of the activation unit."""
    activation: UnitActivation = "prelu"
    """Activation inside the unit; `dice` normalises over the batch's events while training."""
    weights: Literal["raw", "softmax"] = "raw"
    """Whether the events' weights are used as they are, as in the paper, or sum to one."""


class DINState(NamedTuple):
    """The history."""

    events: Tensor
    """(B, L, D). Zero where padded."""
    mask: Tensor
    """(B, L) bool."""


class PReLU(nn.Module):
    """max(x, 0) + alpha min(x, 0), with one learned alpha per column."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((dim,), 0.25))

    def forward(self, x_BLA: Tensor, mask: Tensor) -> Tensor:
        """Activate (B, L, A)."""
        del mask
        return torch.where(x_BLA > 0, x_BLA, x_BLA * self.alpha)


class Sigmoid(nn.Module):
    """The logistic function."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        del dim

    def forward(self, x_BLA: Tensor, mask: Tensor) -> Tensor:
        """Activate (B, L, A)."""
        del mask
        return torch.sigmoid(x_BLA)


class Dice(nn.Module):
    """p x + (1 - p) alpha x with p = sigmoid((x - mean) / std), statistics over real events."""

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.01, eps: float = 1e-8) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_variance", torch.ones(dim))
        self.momentum, self.eps = momentum, eps

    def forward(self, x_BLA: Tensor, mask: Tensor) -> Tensor:
        """Activate (B, L, A); padding has no part in the statistics."""
        mean, variance = self.running_mean, self.running_variance
        if self.training:
            mean, variance = self._update(x_BLA, mask)
        p = torch.sigmoid((x_BLA - mean) * torch.rsqrt(variance + self.eps))
        return p * x_BLA + (1 - p) * self.alpha * x_BLA

    def _update(self, x_BLA: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Give the batch's mean and variance, and move the running ones towards them."""
        padded = ~mask[:, :, None]
        count = mask.sum()
        divisor = count.clamp(min=1)
        mean = x_BLA.masked_fill(padded, 0.0).sum(dim=(0, 1)) / divisor
        centred = (x_BLA - mean).masked_fill(padded, 0.0)
        variance = centred.square().sum(dim=(0, 1)) / divisor
        with torch.no_grad():
            # A batch without any event says nothing.
            step = self.momentum * (count > 0)
            self.running_mean.add_((mean - self.running_mean) * step)
            self.running_variance.add_((variance - self.running_variance) * step)
        return mean, variance


ACTIVATIONS: dict[UnitActivation, type[PReLU | Sigmoid | Dice]] = {
    "prelu": PReLU,
    "dice": Dice,
    "sigmoid": Sigmoid,
}


class DIN(nn.Module):
    """Sums the events, each weighted by an activation unit that compares it with the candidate.

    The unit's first layer W [e, c, e - c, e * c] is computed as (We + Wd) e + (Wc - Wd) c +
    Wp (e * c): the four are never put side by side, and the first part needs no candidate. For
    scoring it is ((We + Wd) + Wp diag(c)) e + (Wc - Wd) c: one small matrix for each candidate.

    Example:
        >>> DINConfig(weights="softmax").hidden_dims
        (80, 40)

    Raises:
        ConfigError: No column of the sequence shares a table with a feature of the candidate.
    """

    Config: ClassVar[type[Config]] = DINConfig
    reads_candidate: ClassVar[bool] = True

    def __init__(self, config: DINConfig, layout: SequenceLayout, *, generator: Generator) -> None:
        super().__init__()
        if not layout.candidate:
            raise ConfigError(
                f"model.sequence.{layout.name}.kind: din compares events with the candidate, and "
                f"no column has an item feature of the same table. Got columns "
                f"{', '.join(layout.columns)}. Give one the item feature's table, or use "
                "masked_mean."
            )
        dim = layout.width
        widths = config.hidden_dims
        self.config, self.dim = config, dim
        self.first = linear(4 * dim, widths[0], generator=generator)
        self.later = nn.ModuleList(linear(a, b, generator=generator) for a, b in pairwise(widths))
        make_activation = ACTIVATIONS[config.activation]
        self.activations = nn.ModuleList(make_activation(width) for width in widths)
        self.weigh = linear(widths[-1], 1, generator=generator)
        self.num_tokens = 1
        self.out_dim = dim

    def cost_letters(self) -> dict[str, int]:
        """Give widths and sums of the activation unit, which the `Cost:` line names."""
        widths = (*self.config.hidden_dims, 1)
        learned = 0 if self.config.activation == "sigmoid" else sum(self.config.hidden_dims)
        return {
            "A": widths[0],
            "P": sum(a * b for a, b in pairwise(widths)),
            "Q": sum(widths) + learned,
        }

    def encode(self, events: Tensor, mask: Tensor, times: Mapping[str, Tensor]) -> DINState:
        """Keep (B, L, D) events under a (B, L) mask."""
        del times
        return DINState(events.masked_fill(~mask[:, :, None], 0.0), mask)

    def read(self, state: DINState, candidate: Tensor | None, inputs: Inputs) -> Tensor:
        """Give the weighted sum of events as one token (B, 1, D)."""
        del inputs
        assert candidate is not None
        x_BLA = self.activations[0](self._first_layer(state.events, candidate), state.mask)
        for layer, activation in zip(self.later, self.activations[1:], strict=True):
            x_BLA = activation(layer(x_BLA), state.mask)
        weights_BL = self.weigh(x_BLA)[:, :, 0]
        if self.config.weights == "softmax":
            lowest = torch.finfo(weights_BL.dtype).min
            weights_BL = softmax_fp32(weights_BL.masked_fill(~state.mask, lowest))
        # Padded events are zero, so that their weights count for nothing.
        return torch.bmm(weights_BL[:, None], state.events)

    def _first_layer(self, events_BLD: Tensor, candidate_BD: Tensor) -> Tensor:
        """Give the unit's first layer (B, L, A)."""
        e_AD, c_AD, d_AD, p_AD = self.first.weight.split(self.dim, dim=1)
        of_candidate = F.linear(candidate_BD, c_AD - d_AD, self.first.bias)[:, None]
        if self.training:
            # Its backward pass is faster than that of many small products.
            product = F.linear(events_BLD * candidate_BD[:, None], p_AD)
            return F.linear(events_BLD, e_AD + d_AD) + of_candidate + product
        weights_BDA = (e_AD + d_AD).t() + candidate_BD[:, :, None] * p_AD.t()
        return torch.baddbmm(of_candidate, events_BLD, weights_BDA)
