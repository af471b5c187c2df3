from __future__ import annotations

import torch

from rankloom.ops import from_slots, to_slots

# Three rows in two requests; the second request has one row and one padding place.
SLOTS = torch.tensor([[0, 1], [2, 3]])
SLOT_OF_ROW = torch.tensor([0, 1, 2])
X = torch.tensor([[1.0], [2.0], [3.0]])


def test_rows_stand_at_their_places_and_padding_is_zero() -> None:
    assert to_slots(X, SLOTS).tolist() == [[[1.0], [2.0]], [[3.0], [0.0]]]


def test_back_from_slots_is_the_inverse() -> None:
    assert torch.equal(from_slots(to_slots(X, SLOTS), SLOT_OF_ROW), X)


def test_padding_places_receive_no_gradient() -> None:
    placed = to_slots(X, SLOTS).requires_grad_()
    from_slots(placed, SLOT_OF_ROW).sum().backward()
    assert placed.grad is not None
    assert placed.grad.flatten().tolist() == [1.0, 1.0, 1.0, 0.0]


def test_what_reaches_a_padding_place_reaches_no_row() -> None:
    x = X.clone().requires_grad_()
    to_slots(x, SLOTS).backward(torch.tensor([[[1.0], [2.0]], [[3.0], [1000.0]]]))
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 2.0, 3.0]


def test_ops_are_well_formed() -> None:
    x = X.clone().requires_grad_()
    torch.library.opcheck(torch.ops.rankloom.to_slots.default, (x, SLOTS))
    placed = to_slots(X, SLOTS).requires_grad_()
    torch.library.opcheck(torch.ops.rankloom.from_slots.default, (placed, SLOT_OF_ROW))
