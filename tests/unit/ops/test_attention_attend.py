"""A history's own attention: equal to the dense definition, whatever the tiles."""

from __future__ import annotations

import pytest
import torch
from tests.unit.ops.attention_cases import MASKS, WEIGHTINGS, draw, draw_bias, gradients
from torch import Tensor, nn
from torch.export import Dim
from torch.testing import assert_close

from rankloom.ops import Bias, Mask, Weighting, attend, attend_jagged, last_rows, read
from rankloom.ops.attention import parts
from rankloom.ops.attention.reference import attend_reference

SOFTMAX, SILU = WEIGHTINGS
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # both in fp64, summed in another order


@pytest.fixture(params=[None, 300], ids=["large-tiles", "small-tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(parts, "TILE_ELEMENTS", request.param)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize(("length", "rows"), [(50, 50), (50, 13), (10, 15)])
def test_results_and_gradients_equal_the_dense_definition(
    mask: Mask, weighting: Weighting, length: int, rows: int
) -> None:
    # Whole histories of one width take torch's own kernel, where the mask is plain.
    query, key, value, lengths = draw(length, rows, value_dim=4 if rows == length else 6)
    options = {"mask": mask, "weighting": weighting, "lengths": lengths}
    out = attend(query, key, value, **options)  # type: ignore[arg-type]
    expected = attend_reference(query, key, value, **options)  # type: ignore[arg-type]
    assert_close(out, expected, **EXACT)
    leaves = [query, key, value]
    for given, right in zip(gradients(out, leaves), gradients(expected, leaves), strict=True):
        assert_close(given, right, **EXACT)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("mask", [one for one in MASKS if one.causal], ids=str)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize("num_tables", [1, 2], ids=["shared", "per-head"])
@pytest.mark.parametrize("rows", [50, 13])
def test_biases_and_their_gradients_equal_the_dense_definition(
    mask: Mask, weighting: Weighting, num_tables: int, rows: int
) -> None:
    query, key, value, lengths = draw(50, rows)
    bias = draw_bias(50, num_tables=num_tables)
    options = {"mask": mask, "weighting": weighting, "lengths": lengths, "bias": bias}
    out = attend(query, key, value, **options)  # type: ignore[arg-type]
    expected = attend_reference(query, key, value, **options)  # type: ignore[arg-type]
    assert_close(out, expected, **EXACT)
    leaves = [query, key, value, bias.positions, bias.times]
    pairs = zip(gradients(out, leaves), gradients(expected, leaves), strict=True)  # type: ignore[arg-type]
    for given, right in pairs:
        assert_close(given, right, **EXACT)


def test_a_window_by_hand() -> None:
    # Keys are zero, so that each row takes the mean of what it sees.
    value = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).view(1, 1, 5, 1)
    zero = torch.zeros_like(value)

    def means(mask: Mask) -> list[float]:
        return attend(zero, zero, value, mask=mask, weighting=SOFTMAX).flatten().tolist()

    assert means(Mask(window=2)) == [1.0, 1.5, 3.0, 6.0, 12.0]
    assert means(Mask(window=1, prefix=1)) == [1.0, 1.5, 2.5, 4.5, 8.5]
    assert means(Mask(window=1, full_rows=1)) == pytest.approx([1.0, 2.0, 4.0, 8.0, 6.2])


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize("window", [20, 21, 1000])
def test_a_window_as_long_as_the_history_is_full_causal(weighting: Weighting, window: int) -> None:
    query, key, value, lengths = draw(20, 20)
    given, full = (
        attend(query, key, value, mask=mask, weighting=weighting, lengths=lengths)
        for mask in (Mask(window=window), Mask())
    )
    assert torch.equal(given, full)


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
def test_more_padding_changes_nothing(mask: Mask, weighting: Weighting) -> None:
    query, key, value, lengths = draw(50, 50)
    generator = torch.Generator().manual_seed(9)

    def padded(x: Tensor) -> Tensor:
        noise = torch.randn(*x.shape[:2], 17, x.shape[3], generator=generator, dtype=x.dtype)
        return torch.cat((x, 100 * noise), dim=2)

    short = attend(query, key, value, mask=mask, weighting=weighting, lengths=lengths)
    long = attend(
        *(padded(x) for x in (query, key, value)), mask=mask, weighting=weighting, lengths=lengths
    )
    assert_close(long[:, :, :50], short, **EXACT)
    assert not long[:, :, 50:].any()


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
def test_histories_without_padding_between_them_give_the_same(
    mask: Mask, weighting: Weighting
) -> None:
    query, key, value, lengths = draw(30, 30)
    bias = draw_bias(30, num_tables=2) if mask.causal else None
    out = attend(query, key, value, mask=mask, weighting=weighting, lengths=lengths, bias=bias)
    is_real = torch.arange(30) < lengths[:, None]
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
    jagged = [x.transpose(1, 2)[is_real] for x in (query, key, value)]
    if bias is not None and bias.seconds is not None:
        bias = bias._replace(seconds=bias.seconds[is_real])
    values = attend_jagged(
        *jagged, offsets, max_length=40, mask=mask, weighting=weighting, bias=bias
    )
    assert_close(values, out.transpose(1, 2)[is_real], **EXACT)


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
def test_the_newest_rows_get_what_they_get_among_all(mask: Mask, weighting: Weighting) -> None:
    query, key, value, lengths = draw(50, 50)
    among_all = attend(query, key, value, mask=mask, weighting=weighting, lengths=lengths)

    def newest(x: Tensor) -> Tensor:
        return last_rows(x.transpose(1, 2), lengths, 7).transpose(1, 2)

    alone = attend(newest(query), key, value, mask=mask, weighting=weighting, lengths=lengths)
    assert_close(alone, newest(among_all), **EXACT)


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
def test_empty_and_one_event_histories_are_finite(mask: Mask, weighting: Weighting) -> None:
    query, key, value, _ = draw(12, 12)
    lengths = torch.tensor([0, 1, 0])
    out = attend(query, key, value, mask=mask, weighting=weighting, lengths=lengths)
    assert all(one.isfinite().all() for one in (out, *gradients(out, [query, key, value])))
    assert out[:, :, 0].abs().sum(dim=(1, 2)).bool().tolist() == [False, True, False]
    if weighting.kind == "softmax":
        assert_close(out[1, :, 0], value[1, :, 0])  # one event weighs itself alone


def test_equal_events_add_up_in_silu_and_not_in_softmax() -> None:
    query, key, value, _ = draw(6, 1)
    twice = [torch.cat((x, x), dim=2) for x in (key, value)]

    def out(weighting: Weighting, *history: Tensor) -> Tensor:
        return attend(query, *history, mask=Mask(), weighting=weighting)

    assert_close(out(SILU, *twice), 2 * out(SILU, key, value), **EXACT)
    assert_close(out(SOFTMAX, *twice), out(SOFTMAX, key, value), **EXACT)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize("mask", [Mask(), Mask(window=4, prefix=2, full_rows=2)], ids=str)
def test_fp32_and_bf16_stay_near(mask: Mask, weighting: Weighting) -> None:
    query, key, value, lengths = draw(30, 30)
    expected = attend(query, key, value, mask=mask, weighting=weighting, lengths=lengths)
    # bf16 keeps 8 bits of operands and result; sums are in fp32.
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        operands = (x.to(dtype) for x in (query, key, value))
        out = attend(*operands, mask=mask, weighting=weighting, lengths=lengths)
        assert out.dtype == dtype
        assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


def test_autocast_does_not_turn_fp32_into_bf16() -> None:
    query, key, value, lengths = (x.float() for x in draw(30, 30))
    options = {"mask": Mask(window=4), "weighting": SILU, "lengths": lengths.long()}
    plain = attend(query, key, value, **options)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attend(query, key, value, **options), plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize(
    "mask", [Mask(), Mask(causal=False), Mask(window=3, prefix=1, full_rows=2)], ids=str
)
def test_op_is_well_formed(mask: Mask, weighting: Weighting) -> None:
    query, key, value, lengths = draw(9, 9)
    bias = draw_bias(9, num_tables=2) if mask.window else Bias()
    operands = (query, key, value, lengths, bias.seconds, bias.positions, bias.times)
    options = (mask.causal, mask.window, mask.prefix, mask.full_rows)
    weights = (weighting.kind, weighting.scale, weighting.divisor)
    torch.library.opcheck(torch.ops.rankloom.attend.default, (*operands, *options, *weights))


class Encoder(nn.Module):
    """A window over the history, its newest rows over all of that, and a read."""

    def forward(self, x: Tensor, lengths: Tensor, candidate: Tensor) -> Tensor:
        heads = x[:, None]
        y = attend(
            heads, heads, heads, mask=Mask(window=3, prefix=1), weighting=SILU, lengths=lengths
        )
        newest = last_rows(x, lengths, 4)[:, None]
        z = attend(newest, y, y, mask=Mask(), weighting=SOFTMAX, lengths=lengths)
        return read(candidate, z, z, weighting=SILU, lengths=lengths.clamp(max=4))


def test_an_exported_program_takes_histories_of_any_length() -> None:
    def inputs(count: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(count)
        x = torch.randn(count, length, 4, generator=generator)
        lengths = torch.randint(0, length + 1, (count,), generator=generator)
        return x, lengths, torch.randn(count, 1, 5, 4, generator=generator)

    batch, length = Dim("B", min=2), Dim("L", min=2)
    shapes = ({0: batch, 1: length}, {0: batch}, {0: batch})
    program = torch.export.export(Encoder(), inputs(3, 9), dynamic_shapes=shapes, strict=False)
    for sizes in ((2, 2), (5, 40)):
        given = inputs(*sizes)
        assert_close(program.module()(*given), Encoder()(*given))


def test_newest_rows_by_hand() -> None:
    x = torch.arange(1.0, 11.0).view(2, 5, 1).requires_grad_()
    rows = last_rows(x, torch.tensor([4, 1]), 3)
    assert rows[:, :, 0].tolist() == [[2.0, 3.0, 4.0], [6.0, 0.0, 0.0]]
    rows.backward(torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]))
    assert x.grad is not None
    assert x.grad[:, :, 0].tolist() == [[0.0, 1.0, 2.0, 3.0, 0.0], [4.0, 0.0, 0.0, 0.0, 0.0]]


def test_newest_rows_may_be_more_than_there_are_places() -> None:
    x = torch.arange(1.0, 5.0).view(2, 2, 1)
    rows = last_rows(x, torch.tensor([2, 0]), 3)
    assert rows[:, :, 0].tolist() == [[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    torch.library.opcheck(
        torch.ops.rankloom.last_rows.default, (x.requires_grad_(), torch.tensor([2, 0]), 3)
    )
