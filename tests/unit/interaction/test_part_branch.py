from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rankloom.interaction.tokenmixer_large_separated import PaddedRMSNorm
from rankloom.layers.feed_forward import PerTokenSwiGLU
from rankloom.layers.norm import RMSNorm
from rankloom.layers.separation import pad_columns


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Near zero, eps counts.
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_padded_norm_is_the_norm_over_all_columns(draw, scale: float) -> None:
    whole, part = RMSNorm(10).double(), PaddedRMSNorm(4, padded_dim=10).double()
    gains: Tensor = draw(10)
    with torch.no_grad():
        whole.weight.copy_(gains)
        part.weight.copy_(gains[:4])
    x = draw(3, 2, 4) * scale
    torch.testing.assert_close(
        pad_columns(part(x), 10), whole(pad_columns(x, 10)), rtol=1e-14, atol=0
    )


def test_part_of_a_swiglu_reads_and_gives_some_columns(draw) -> None:
    whole = PerTokenSwiGLU(2, 8, 5, generator=seeded()).double()
    part = PerTokenSwiGLU(2, 3, 5, out_dim=6, down_std=0.1, generator=seeded()).double()
    with torch.no_grad():
        part.gate_up.weight.copy_(whole.gate_up.weight[:, :3])
        part.down.weight.copy_(whole.down.weight[..., 2:])
    x = draw(4, 2, 3)
    torch.testing.assert_close(part(x), whole(pad_columns(x, 8))[..., 2:])
