from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.config import resolve
from rankloom.errors import ConfigError
from rankloom.layers.protocols import Inputs, SequenceLayout
from rankloom.schema import Rate
from rankloom.sequence import SEQUENCES

INPUTS = Inputs({}, {}, {}, torch.arange(3))
KINDS: list[tuple[str, dict[str, object]]] = [
    ("masked_mean", {}),
    ("din", {}),
    ("din", {"activation": "dice", "weights": "softmax"}),
    ("din", {"activation": "sigmoid", "hidden_dims": (8,)}),
    ("solar", {"dim": 8, "rank": 3}),
    ("solar", {"dim": 8, "rank": 3, "read": "exact_at_low_rank"}),
    ("transformer", {"dim": 8}),
    ("transformer", {"dim": 8, "read": "newest"}),
]


def build(kind: str, *, width: int = 4, candidate: bool = True, **options: Any) -> Any:
    cls = resolve(kind, SEQUENCES, path="kind")
    layout = SequenceLayout(
        name="history",
        columns={"item": width},
        rate=Rate.USER,
        candidate={"item": "item"} if candidate else {},
        max_length=5,
        has_times=False,
    )
    return cls(cls.Config(**options), layout, generator=torch.Generator().manual_seed(0)).double()


def histories(lengths: list[int], *, length: int = 5, width: int = 4) -> tuple[Tensor, Tensor]:
    """Draw histories padded on the left."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(length) >= length - torch.tensor(lengths)[:, None]
    events = torch.randn(len(lengths), length, width, dtype=torch.float64, generator=generator)
    return events * mask[:, :, None], mask


def candidates(rows: int, width: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(rows, width, dtype=torch.float64, generator=generator)


def read(encoder: Any, events: Tensor, mask: Tensor, candidate: Tensor) -> Tensor:
    tokens: Tensor = encoder.read(encoder.encode(events, mask, {}), candidate, INPUTS)
    return tokens


def test_mean_by_hand() -> None:
    encoder = build("masked_mean", width=1)
    events = torch.tensor([[[0.0], [1.0], [4.0]], [[0.0], [0.0], [0.0]]]).double()
    mask = torch.tensor([[False, True, True], [False, False, False]])
    tokens = encoder.read(encoder.encode(events, mask, {}), None, INPUTS)
    assert tokens.tolist() == [[[2.5]], [[0.0]]]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_padding_is_invisible(kind: str, options: dict[str, object], training: bool) -> None:
    encoder = build(kind, **options).train(training)
    events, mask = histories([5, 2, 0])
    c = candidates(3)
    expected = read(encoder, events, mask, c)
    padded = torch.nn.functional.pad(events, (0, 0, 3, 0), value=1e3)
    more = torch.nn.functional.pad(mask, (3, 0), value=False)
    torch.testing.assert_close(read(encoder, padded, more, c), expected)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_an_empty_history_gives_zeros(kind: str, options: dict[str, object]) -> None:
    encoder = build(kind, **options)
    events, mask = histories([0, 0])
    for mode in (True, False):
        assert not read(encoder.train(mode), events, mask, candidates(2)).any()


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_rows_are_independent_outside_training(kind: str, options: dict[str, object]) -> None:
    encoder = build(kind, **options).eval()
    events, mask = histories([5, 2, 3])
    c = candidates(3)
    before = read(encoder, events, mask, c)
    events[1, -1] += 1.0
    c[1] += 1.0
    after = read(encoder, events, mask, c)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])


def test_din_depends_on_the_candidate_and_its_state_does_not() -> None:
    encoder = build("din")
    events, mask = histories([5, 2, 3])
    state = encoder.encode(events, mask, {})
    first = encoder.read(state, candidates(3), INPUTS)
    assert not torch.isclose(first, encoder.read(state, candidates(3) + 1.0, INPUTS)).all()
    assert torch.equal(first, encoder.read(state, candidates(3), INPUTS))


def test_raw_weights_grow_with_the_history_and_softmax_weights_do_not() -> None:
    event, c = candidates(1)[:, None], candidates(1) + 0.5
    once = (event, torch.ones(1, 1, dtype=torch.bool))
    thrice = (event.expand(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    raw, soft = build("din"), build("din", weights="softmax")
    torch.testing.assert_close(read(raw, *thrice, c), 3 * read(raw, *once, c))
    torch.testing.assert_close(read(soft, *thrice, c), read(soft, *once, c))
    torch.testing.assert_close(read(soft, *once, c), event)


def test_dice_learns_its_statistics_from_real_events_only() -> None:
    encoder = build("din", activation="dice", hidden_dims=(3,)).train()
    dice = encoder.activations[0]
    x = torch.tensor([[[9.0] * 3, [2.0] * 3, [4.0] * 3]]).double()
    dice(x, torch.tensor([[False, True, True]]))
    # Mean 3, variance 1: a hundredth of the way from (0, 1).
    torch.testing.assert_close(dice.running_mean, torch.full((3,), 0.03).double())
    torch.testing.assert_close(dice.running_variance, torch.ones(3).double())
    dice(x, torch.zeros(1, 3, dtype=torch.bool))
    torch.testing.assert_close(dice.running_mean, torch.full((3,), 0.03).double())


def test_din_needs_something_to_compare_with() -> None:
    with pytest.raises(ConfigError, match=r"model.sequence.history.kind: din compares"):
        build("din", candidate=False)
