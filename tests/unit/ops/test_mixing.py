from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rankloom.ops import mix, revert


def numbered(*, tokens: int, dim: int, rows: int = 2) -> Tensor:
    return torch.arange(rows * tokens * dim, dtype=torch.float32).view(rows, tokens, dim)


def test_slot_zero_holds_the_first_slice_of_every_token() -> None:
    x = numbered(tokens=3, dim=6)
    first = torch.cat([x[:, token, :2] for token in range(3)], dim=1)
    assert torch.equal(mix(x, 3)[:, 0], first)


def test_mixing_permutes_the_numbers_of_a_row() -> None:
    x = numbered(tokens=4, dim=6)
    mixed = mix(x, 3)
    assert mixed.shape == (2, 3, 8)
    assert not torch.equal(mixed.flatten(1), x.flatten(1))
    assert torch.equal(mixed.flatten(1).sort(dim=1).values, x.flatten(1))


def test_mixing_twice_is_the_identity_when_slots_equal_tokens() -> None:
    x = numbered(tokens=6, dim=12)
    assert torch.equal(mix(mix(x, 6), 6), x)


@pytest.mark.parametrize(("tokens", "dim", "heads"), [(6, 8, 4), (3, 12, 12), (5, 6, 1), (1, 4, 2)])
def test_revert_is_the_exact_inverse(tokens: int, dim: int, heads: int) -> None:
    x = numbered(tokens=tokens, dim=dim)
    assert torch.equal(revert(mix(x, heads), tokens), x)


def test_every_mixed_slot_depends_on_every_token() -> None:
    x = numbered(tokens=4, dim=8, rows=1).requires_grad_()
    for slot in range(4):
        (gradient,) = torch.autograd.grad(mix(x, 4)[0, slot].sum(), x)
        assert gradient[0].sum(dim=1).tolist() == [2.0, 2.0, 2.0, 2.0]
