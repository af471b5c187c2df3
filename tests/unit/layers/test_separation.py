from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rankloom.layers.protocols import TokenLayout
from rankloom.layers.separation import (
    CheapCompensation,
    JoinRows,
    LowRankCompensation,
    ProjectTokens,
    SeparationConfig,
    Slots,
    Streams,
    add_to_first_columns,
    make_compensation,
    mix_apart,
    pad_columns,
    revert_apart,
    stream_problems,
    streams_of,
    user_tokens_that_fit,
)
from rankloom.ops import mix, revert

LAYOUT = TokenLayout(gives="tokens", num_user=2, num_request=1, num_candidate=3, dim=12)


def slots_of(num_user: int, num_candidate: int, heads: int, dim: int = 12, **options) -> Slots:
    layout = TokenLayout(gives="tokens", num_user=num_user, num_candidate=num_candidate, dim=dim)
    return Slots(streams_of(SeparationConfig(**options), layout), heads)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (2, 2, 4)),
        ({"rate": "request"}, (3, 3, 3)),
        ({"user_tokens": 5}, (2, 5, 4)),
        ({"rate": "request", "user_tokens": 5}, (3, 5, 3)),
    ],
)
def test_tokens_are_counted_by_stream(options, expected: tuple[int, int, int]) -> None:
    streams = streams_of(SeparationConfig(**options), LAYOUT)
    assert (streams.num_given, streams.num_user, streams.num_candidate) == expected


def test_place_of_a_token_moves_with_the_user_tokens() -> None:
    streams = streams_of(SeparationConfig(user_tokens=5), LAYOUT)
    # The request's token and the first candidate token stand behind five user tokens now.
    assert [streams.place_of(token) for token in (1, 2, 3)] == [None, 5, 6]
    as_they_are = streams_of(SeparationConfig(), LAYOUT)
    assert [as_they_are.place_of(token) for token in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("num_user", "num_candidate", "heads"), [(2, 2, 4), (2, 2, 2), (4, 2, 3), (3, 1, 12)]
)
def test_rows_hold_what_the_mask_leaves(num_user: int, num_candidate: int, heads: int) -> None:
    slots = slots_of(num_user, num_candidate, heads)
    user, candidate = draw(5, num_user, 12), draw(5, num_candidate, 12)
    whole = mix(torch.cat((user, candidate), dim=1), heads)
    rows, border, row_border = mix_apart(user, candidate, slots), slots.user_width, slots.num_user
    assert row_border * (num_user + num_candidate) == heads * num_user
    assert torch.equal(rows.user, whole[:, :row_border, :border])
    assert torch.equal(rows.shared, whole[:, row_border:, :border])
    assert torch.equal(rows.candidate, whole[:, row_border:, border:])
    assert torch.equal(JoinRows()(rows), whole[:, row_border:])


@pytest.mark.parametrize(
    ("num_user", "num_candidate", "heads"), [(2, 2, 4), (2, 2, 2), (4, 2, 3), (3, 1, 12)]
)
def test_reverted_tokens_hold_what_the_mask_leaves(
    num_user: int, num_candidate: int, heads: int
) -> None:
    slots = slots_of(num_user, num_candidate, heads)
    rows = draw(5, heads, slots.width)
    whole = revert(rows, num_user + num_candidate)
    user, candidate = revert_apart(
        rows[:, : slots.num_user], rows[:, slots.num_user :, slots.user_width :], slots
    )
    assert torch.equal(user, whole[:, :num_user, : slots.user_dim])
    assert torch.equal(candidate, whole[:, num_user:])


def test_columns_are_added_in_front() -> None:
    x, added = torch.ones(1, 1, 3), torch.tensor([[[5.0, 6.0]]])
    assert add_to_first_columns(x, added).tolist() == [[[6.0, 7.0, 1.0]]]
    assert pad_columns(added, 4).tolist() == [[[5.0, 6.0, 0.0, 0.0]]]


def test_low_rank_compensation_by_hand() -> None:
    # One user token and one candidate token of width 2: rows (u0), (u1, c1).
    module = make_compensation(slots_of(1, 1, 2, dim=2, rank=1), generator=torch.Generator())
    assert isinstance(module, LowRankCompensation)
    with torch.no_grad():
        module.down.weight.fill_(2.0)
        module.up.weight.copy_(torch.tensor([[10.0], [100.0]]))
    rows = mix_apart(
        torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]]), slots_of(1, 1, 2, dim=2)
    )
    # u0 = 1 goes through 2 and then 10 and 100.
    assert module(rows).tolist() == [[[2.0 + 20.0, 4.0 + 200.0]]]


def test_cheap_compensation_by_hand() -> None:
    slots = slots_of(1, 1, 2, dim=2, compensation="cheap")
    module = make_compensation(slots, generator=torch.Generator())
    assert isinstance(module, CheapCompensation)
    with torch.no_grad():
        module.weight.fill_(10.0)
    rows = mix_apart(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]]), slots)
    assert module(rows).tolist() == [[[2.0 + 10.0, 4.0]]]


def test_rank_is_half_the_width_of_a_token() -> None:
    module = make_compensation(slots_of(2, 2, 4), generator=torch.Generator().manual_seed(0))
    assert isinstance(module, LowRankCompensation)
    # 2 user rows of 2 slices of 3 in; 2 candidate rows of 4 slices of 3 out.
    assert tuple(module.down.weight.shape) == (6, 12)
    assert tuple(module.up.weight.shape) == (24, 6)
    assert not module.up.weight.any()
    assert module.down.weight.abs().max() > 0.1


def test_each_projected_token_has_weights_of_its_own_fans() -> None:
    project = ProjectTokens(4, 6, 50, generator=torch.Generator().manual_seed(0)).project
    assert tuple(project.weight.shape) == (6, 200, 50)
    # Uniform within sqrt(6 / (200 + 50)).
    assert project.weight.abs().max().item() == pytest.approx((6 / 250) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(("heads", "candidates"), [(4, 4), (6, 3), (12, 2), (8, 6)])
def test_user_tokens_that_fit_are_the_nearest_of_all(heads: int, candidates: int) -> None:
    for num_user in range(1, 12):
        streams = Streams(
            config=SeparationConfig(), num_given=1, num_user=num_user,
            num_candidate=candidates, dim=48,
        )  # fmt: skip
        every = [t for t in range(1, 1000) if heads * t % (t + candidates) == 0]
        distances = sorted(abs(one - num_user) for one in every)[:3]
        found = user_tokens_that_fit(streams, heads)
        assert set(found) <= set(every)
        assert sorted(abs(one - num_user) for one in found) == distances


def test_all_problems_of_streams_come_together() -> None:
    config = SeparationConfig(compensation="none", rank=2)
    problems = stream_problems(
        streams_of(config, TokenLayout(gives="tokens", num_user=0, num_candidate=0, dim=4))
    )
    assert [one.partition(". Got")[0] for one in problems] == [
        "model.interaction.separation: the tokenization gives no token of rate user",
        "model.interaction.separation: no token is left for the candidate stream",
        "model.interaction.separation.rank: belongs to compensation low_rank",
    ]


@pytest.mark.parametrize(
    "values", [{"user_tokens": 0}, {"rate": "item"}, {"compensation": "full"}, {"rank": 0}]
)
def test_values_that_mean_nothing_are_refused(values) -> None:
    with pytest.raises(ValidationError):
        SeparationConfig(**values)
