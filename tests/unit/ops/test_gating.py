from __future__ import annotations

import pytest
import torch

from rankloom.ops import rows, swiglu


def test_by_hand() -> None:
    # SiLU(0) = 0 and SiLU(ln 3) = 0.75 ln 3.
    log3 = 1.0986123
    y = swiglu(torch.tensor([[0.0, log3, 5.0, 2.0]]))
    torch.testing.assert_close(y, torch.tensor([[0.0, 1.5 * log3]]))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("chunk", [4, 1 << 20])
def test_gradients(order: tuple[int, ...], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator)
    x = x.permute(order).requires_grad_()
    assert torch.autograd.gradcheck(swiglu, (x,))
    torch.library.opcheck(torch.ops.rankloom.swiglu.default, (x,))


def test_large_gates_stay_finite() -> None:
    x = torch.tensor([[1e4, -1e4, 1.0, 1.0]], requires_grad=True)
    y = swiglu(x)
    y.sum().backward()
    assert y.tolist() == [[1e4, 0.0]]
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, 0.0, 1e4, 0.0]]
