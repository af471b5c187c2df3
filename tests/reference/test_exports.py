"""Every slot class, captured with a dynamic batch, gives what it gives uncaptured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankloom.config import resolve
from rankloom.heads.shared_bottom import SharedBottom, SharedBottomConfig
from rankloom.interaction import INTERACTIONS
from rankloom.layers.protocols import (
    FeatureLayout,
    Inputs,
    Layout,
    SequenceLayout,
    TokenLayout,
    Tokens,
    run_layers,
)
from rankloom.schema import Rate
from rankloom.sequence import SEQUENCES
from rankloom.tokenization import TOKENIZATIONS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Run(nn.Module):
    """A part between tensors, as capture wants it."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part = part


class RunInteraction(Run):
    def __init__(self, part: Any) -> None:
        super().__init__(part)
        layout = Layout(features={}, tasks=("a",), out_dim=part.out_dim)
        self.head = SharedBottom(SharedBottomConfig(), layout, generator=seeded())

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        stack = run_layers(self.part, Tokens(*given) if len(given) == 3 else given[0])
        return self.head(stack, Inputs({}, {}, {}, given[0]))["a"], stack.features()


class RunTokenization(Run):
    def forward(self, *given: Tensor) -> Any:
        features = dict(zip(("user", "item", "age"), given, strict=False))
        return self.part(Inputs(features, {}, {}, given[0]))


class RunSequence(Run):
    def forward(self, *given: Tensor) -> Tensor:
        events, candidate = given
        mask = torch.ones_like(events[:, :, 0], dtype=torch.bool)
        state = self.part.encode(events, mask, {})
        tokens: Tensor = self.part.read(state, candidate, Inputs({}, {}, {}, candidate))
        return tokens


def assert_export_is_exact(module: nn.Module, *shapes: tuple[int, ...]) -> None:
    """Capture with 4 rows; compare at 4 and at 7 rows, in eval and in training mode."""
    rows = torch.export.Dim("B", min=2)
    small = tuple(torch.randn(4, *shape, generator=seeded(1)) for shape in shapes)
    large = tuple(torch.randn(7, *shape, generator=seeded(2)) for shape in shapes)
    for mode in (False, True):
        module.train(mode)
        program = torch.export.export(
            module, small, dynamic_shapes={"given": tuple({0: rows} for _ in shapes)}, strict=False
        ).module()
        for given in (small, large):
            torch.manual_seed(0)
            expected = module(*given)
            torch.manual_seed(0)
            torch.testing.assert_close(program(*given), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("linear", {}),
        ("mlp", {"hidden_dims": (5,), "norm": "layer", "dropout": 0.5}),
        ("dcn_v2", {"hidden_dims": (5,)}),
        ("dcn_v2", {"hidden_dims": (5,), "rank": 2, "structure": "stacked"}),
        ("rankmixer", {"dropout": 0.5}),
        ("tokenmixer_large", {"num_layers": 3, "num_heads": 4, "readout": "mean_global"}),
        ("tokenmixer_large", {"norm": "post", "dropout": 0.5}),
    ],
)
def test_interactions(kind: str, options: dict[str, Any]) -> None:
    cls = resolve(kind, INTERACTIONS, path="kind")
    counts = {"num_user": 2, "num_request": 0, "num_candidate": 1, "global_token": 2}
    tokens = TokenLayout(gives="tokens", dim=12, **counts)  # type: ignore[arg-type]
    if cls.takes == "flat":
        tokens = TokenLayout(gives="flat", dim=6)
    part = cls(cls.Config(**options), Layout(features={}, tokens=tokens), generator=seeded())
    shapes = [(6,)] if cls.takes == "flat" else [(2, 12), (0, 12), (1, 12)]
    assert_export_is_exact(RunInteraction(part), *shapes)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("flat", {}),
        ("fields", {}),
        ("per_feature", {}),
        ("semantic_groups", {"rest": "token", "global_token": True, "hidden_dim": 4}),
    ],
)
def test_tokenizations(kind: str, options: dict[str, Any]) -> None:
    cls = resolve(kind, TOKENIZATIONS, path="kind")
    features = {
        "user": FeatureLayout(width=3, rate=Rate.USER),
        "item": FeatureLayout(width=3, rate=Rate.CANDIDATE),
    }
    shapes = [(3,), (3,)]
    if kind != "fields":
        features["age"] = FeatureLayout(width=1, rate=Rate.USER)
        shapes.append((1,))
    part = cls(cls.Config(**options), Layout(features=features), generator=seeded())
    assert_export_is_exact(RunTokenization(part), *shapes)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("masked_mean", {}),
        ("din", {}),
        ("din", {"weights": "softmax", "activation": "sigmoid"}),
        ("transformer", {"dim": 12, "num_heads": 3, "dropout": 0.5}),
        ("transformer", {"dim": 12, "read": "newest", "max_positions": 3}),
    ],
)
def test_sequences(kind: str, options: dict[str, Any]) -> None:
    layout = SequenceLayout(
        name="history",
        columns={"item": 3},
        rate=Rate.USER,
        candidate={"item": "item"},
        max_length=5,
        has_times=False,
    )
    cls = resolve(kind, SEQUENCES, path="kind")
    part = cls(cls.Config(**options), layout, generator=seeded())
    assert_export_is_exact(RunSequence(part), (5, 3), (3,))


def test_dice_in_eval_mode() -> None:
    # In training its statistics are part of the state, which a capture updates on its own copy.
    layout = SequenceLayout(
        name="history",
        columns={"item": 3},
        rate=Rate.USER,
        candidate={"item": "item"},
        max_length=5,
        has_times=False,
    )
    cls = resolve("din", SEQUENCES, path="kind")
    part = cls(cls.Config(activation="dice"), layout, generator=seeded())
    given = (torch.randn(4, 5, 3, generator=seeded(1)), torch.randn(4, 3, generator=seeded(2)))
    module = RunSequence(part).eval()
    program = torch.export.export(module, given, strict=False).module()
    torch.testing.assert_close(program(*given), module(*given), rtol=0, atol=0)
