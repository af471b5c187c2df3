from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.config import resolve
from rankloom.interaction import INTERACTIONS
from rankloom.layers.protocols import Layout, TokenLayout, Tokens

Build = Callable[..., Any]


@pytest.fixture
def build() -> Build:
    """Build an interaction by name: `build("mlp", dim=8, hidden_dims=(4,))`, seeded, in fp64."""

    def make(kind: str, *, tokens: int = 0, dim: int = 12, user: int = 0, **options: Any) -> Any:
        cls = resolve(kind, INTERACTIONS, path="kind")
        layout = TokenLayout(
            gives=cls.takes,
            num_user=user,
            num_candidate=tokens - user if tokens else 0,
            dim=dim,
            global_token=user if tokens else None,
        )
        generator = torch.Generator().manual_seed(0)
        module = cls(cls.Config(**options), Layout(features={}, tokens=layout), generator=generator)
        return module.double()

    return make


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.fixture
def as_tokens() -> Callable[..., Tokens]:
    """Cut (B, T, D) into `user` user tokens and candidate tokens."""

    def cut(x: Tensor, user: int = 0) -> Tokens:
        return Tokens(x[:, :user], x[:, :0], x[:, user:])

    return cut
