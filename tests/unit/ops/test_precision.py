from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rankloom.ops import layer_norm_fp32, rms_norm_fp32, rows, softmax_fp32


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=dtype, generator=generator)


LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: draw(3, 4, 5),
    "tokens first in memory": lambda: draw(4, 3, 5).transpose(0, 1),
    "not dense": lambda: draw(3, 8, 5)[:, ::2],
    "columns not contiguous": lambda: draw(3, 5, 4).transpose(1, 2),
    "flat": lambda: draw(3, 5),
}


@pytest.fixture(params=LAYOUTS)
def x(request: pytest.FixtureRequest) -> Tensor:
    return LAYOUTS[request.param]().requires_grad_()


WEIGHT = draw(5, seed=1).requires_grad_()
BIAS = draw(5, seed=2).requires_grad_()


def test_rms_norm_by_hand() -> None:
    # The mean square of (3, 4) is 12.5.
    y = rms_norm_fp32(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), eps=0.0)
    torch.testing.assert_close(y, torch.tensor([[3.0, 8.0]]) / 12.5**0.5)


def test_layer_norm_by_hand() -> None:
    # Mean 2, variance 1.
    y = layer_norm_fp32(
        torch.tensor([[1.0, 3.0]]), torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), eps=0.0
    )
    torch.testing.assert_close(y, torch.tensor([[-0.5, 2.0]]))


def test_softmax_by_hand() -> None:
    y = softmax_fp32(torch.tensor([[0.0, 1.0986123]]))
    torch.testing.assert_close(y, torch.tensor([[0.25, 0.75]]))


def test_rms_norm_gradients(x: Tensor) -> None:
    assert torch.autograd.gradcheck(rms_norm_fp32, (x, WEIGHT))


def test_layer_norm_gradients(x: Tensor) -> None:
    assert torch.autograd.gradcheck(layer_norm_fp32, (x, WEIGHT, BIAS))


def test_softmax_gradients(x: Tensor) -> None:
    assert torch.autograd.gradcheck(lambda one: softmax_fp32(one, 1), (x,))


def test_rms_norm_in_pieces_equals_in_one(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[Tensor, ...]:
        y = rms_norm_fp32(x, WEIGHT)
        return (y, *torch.autograd.grad(y.square().sum(), (x, WEIGHT)))

    whole = run()
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 10)
    torch.testing.assert_close(run(), whole)


def test_ops_are_well_formed(x: Tensor) -> None:
    ops = torch.ops.rankloom
    torch.library.opcheck(ops.rms_norm.default, (x, WEIGHT, 1e-6))
    torch.library.opcheck(ops.layer_norm.default, (x, WEIGHT, BIAS, 1e-6))
    torch.library.opcheck(ops.softmax.default, (x, 1))


def test_norms_keep_the_memory_order() -> None:
    x = LAYOUTS["tokens first in memory"]()
    assert rms_norm_fp32(x, WEIGHT).stride() == x.stride()
    assert layer_norm_fp32(x, WEIGHT, BIAS).stride() == x.stride()


@pytest.mark.parametrize(
    "op",
    [
        lambda x: rms_norm_fp32(x, torch.ones(512)),
        lambda x: layer_norm_fp32(x, torch.ones(512), torch.zeros(512)),
        softmax_fp32,
    ],
    ids=["rms_norm", "layer_norm", "softmax"],
)
def test_bf16_is_computed_in_fp32_and_given_back_as_bf16(op: Callable[[Tensor], Tensor]) -> None:
    x = draw(4, 512, dtype=torch.float32).bfloat16()
    y = op(x)
    assert y.dtype == torch.bfloat16
    # Equal to the last bit: rounded once, at the end.
    assert torch.equal(y, op(x.float()).bfloat16())


@pytest.mark.parametrize("width", [1, 5])
def test_a_zero_row_stays_finite(width: int) -> None:
    x = torch.zeros(2, width, requires_grad=True)
    rms_norm_fp32(x, torch.ones(width)).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_norms_ignore_autocast() -> None:
    x, weight = draw(3, 5, dtype=torch.float32), draw(5, dtype=torch.float32, seed=1)
    x.requires_grad_()
    weight.requires_grad_()

    def run() -> tuple[Tensor, ...]:
        normed = layer_norm_fp32(rms_norm_fp32(x, weight), weight, weight)
        return torch.autograd.grad(softmax_fp32(normed).square().sum(), (x, weight))

    expected = run()
    with torch.autocast("cpu", torch.bfloat16):
        for given, wanted in zip(run(), expected, strict=True):
            assert torch.equal(given, wanted)
