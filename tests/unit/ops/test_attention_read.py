"""Candidates over a history: each alone, and itself if it is given."""

from __future__ import annotations

import pytest
import torch
from tests.unit.ops.attention_cases import WEIGHTINGS, draw, draw_bias, gradients
from torch import Tensor
from torch.testing import assert_close

from rankloom.ops import Bias, Mask, Weighting, attend, read
from rankloom.ops.attention import parts
from rankloom.ops.attention.reference import read_reference

SOFTMAX, SILU = WEIGHTINGS
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # both in fp64, summed in another order


def draw_own(rows: int, value_dim: int) -> tuple[Tensor, Tensor]:
    key, _, value, _ = draw(rows, rows, value_dim=value_dim, seed=5)
    return key, value


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize("has_own", [False, True])
@pytest.mark.parametrize("num_tables", [0, 1, 2])
@pytest.mark.parametrize("tile", [1 << 18, 200])
def test_results_and_gradients_equal_the_dense_definition(
    weighting: Weighting, has_own: bool, num_tables: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "TILE_ELEMENTS", tile)
    query, key, value, lengths = draw(40, 11, value_dim=4 if not num_tables else 6)
    leaves = [query, key, value]
    own, bias = None, Bias()
    if has_own:
        own = draw_own(11, value.shape[3])
        leaves += own
    if num_tables:
        bias = draw_bias(40, num_tables=num_tables)
        leaves += [one for one in bias[:2] if one is not None]
    options = {"weighting": weighting, "lengths": lengths, "own": own, "bias": bias}
    out = read(query, key, value, **options)  # type: ignore[arg-type]
    expected = read_reference(query, key, value, **options)  # type: ignore[arg-type]
    assert_close(out, expected, **EXACT)
    for given, right in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        assert_close(given, right, **EXACT)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
def test_candidates_do_not_see_each_other(weighting: Weighting) -> None:
    query, key, value, lengths = draw(20, 6)
    own = draw_own(6, 4)
    out = read(query, key, value, weighting=weighting, lengths=lengths, own=own)
    changed = [x.clone() for x in (query, *own)]
    for x in changed:
        x[:, :, 2] += 10
    other = read(
        changed[0], key, value, weighting=weighting, lengths=lengths, own=(changed[1], changed[2])
    )
    same = [0, 1, 3, 4, 5]
    assert torch.equal(other[:, :, same], out[:, :, same])
    assert not torch.equal(other[:, :, 2], out[:, :, 2])


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize("size", [1, 4])
def test_micro_batches_give_what_one_call_gives(weighting: Weighting, size: int) -> None:
    query, key, value, lengths = draw(20, 6)
    own = draw_own(6, 4)
    together = read(query, key, value, weighting=weighting, lengths=lengths, own=own)
    pieces = [
        read(q, key, value, weighting=weighting, lengths=lengths, own=(k, v))
        for q, k, v in zip(*(x.split(size, dim=2) for x in (query, *own)), strict=True)
    ]
    assert_close(torch.cat(pieces, dim=2), together, **EXACT)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
def test_a_candidate_with_its_own_event_is_the_next_event(weighting: Weighting) -> None:
    """What HSTU computes with the candidate put behind the history, at one candidate."""
    query, key, value, lengths = draw(20, 1)
    own = draw_own(1, 4)
    bias = draw_bias(21, num_tables=2)
    assert bias.seconds is not None
    place = lengths[:, None]
    behind = [
        torch.cat((x, x[:, :, :1]), dim=2).scatter(
            2, lengths[:, None, None, None].expand(-1, 2, 1, 4), one
        )
        for x, one in zip((key, value), own, strict=True)
    ]
    expected = attend(
        query, *behind, mask=Mask(), weighting=weighting, lengths=lengths + 1, bias=bias
    )
    since = (bias.seconds.gather(1, place) - bias.seconds)[:, :20]
    out = read(
        query,
        key,
        value,
        weighting=weighting,
        lengths=lengths,
        own=own,
        bias=bias._replace(seconds=since),
    )
    assert_close(out, expected, **EXACT)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
def test_more_padding_changes_nothing(weighting: Weighting) -> None:
    query, key, value, lengths = draw(20, 6)
    short = read(query, key, value, weighting=weighting, lengths=lengths)
    key, value = (torch.cat((x, 1000 * x), dim=2) for x in (key, value))
    assert_close(read(query, key, value, weighting=weighting, lengths=lengths), short, **EXACT)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize("has_own", [False, True])
def test_empty_and_one_event_histories_are_finite(weighting: Weighting, has_own: bool) -> None:
    query, key, value, _ = draw(12, 3)
    own = draw_own(3, 4) if has_own else None
    leaves = [query, key, value, *(own or ())]
    out = read(query, key, value, weighting=weighting, lengths=torch.tensor([0, 1, 0]), own=own)
    assert all(one.isfinite().all() for one in (out, *gradients(out, leaves)))
    if own is None:
        assert not out[0].any()
    elif weighting.kind == "softmax":
        assert_close(out[0], own[1][0])  # nothing else to see


def test_equal_events_add_up_in_silu_and_not_in_softmax() -> None:
    query, key, value, _ = draw(6, 3)
    twice = [torch.cat((x, x), dim=2) for x in (key, value)]
    once_silu, once_softmax = (read(query, key, value, weighting=w) for w in (SILU, SOFTMAX))
    assert_close(read(query, *twice, weighting=SILU), 2 * once_silu, **EXACT)
    assert_close(read(query, *twice, weighting=SOFTMAX), once_softmax, **EXACT)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types_stay_near(weighting: Weighting, dtype: torch.dtype) -> None:
    query, key, value, lengths = draw(20, 6)
    own = draw_own(6, 4)
    expected = read(query, key, value, weighting=weighting, lengths=lengths, own=own)
    cast = [x.to(dtype) for x in (query, key, value, *own)]
    out = read(*cast[:3], weighting=weighting, lengths=lengths, own=(cast[3], cast[4]))
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    assert out.dtype == dtype
    assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize("is_whole", [False, True])
def test_op_is_well_formed(weighting: Weighting, is_whole: bool) -> None:
    query, key, value, lengths = draw(9, 5)
    own, bias = (None, None), Bias()
    if is_whole:
        own, bias = draw_own(5, 4), draw_bias(9, num_tables=2)
    operands = (query, key, value, lengths, *own, bias.seconds, bias.positions, bias.times)
    weights = (weighting.kind, weighting.scale, weighting.divisor)
    torch.library.opcheck(torch.ops.rankloom.read.default, (*operands, *weights))
