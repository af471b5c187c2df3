from __future__ import annotations

import torch

from rankloom.ops import expand

REQUESTS = torch.tensor([0, 0, 2])


def test_each_row_gets_its_request() -> None:
    x = torch.tensor([[1.0], [2.0], [3.0]])
    assert expand(x, REQUESTS).tolist() == [[1.0], [1.0], [3.0]]


def test_gradient_sums_the_rows_of_a_request() -> None:
    x = torch.zeros(3, 1, requires_grad=True)
    expand(x, REQUESTS).backward(torch.tensor([[1.0], [10.0], [100.0]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[11.0], [0.0], [100.0]]


def test_op_is_well_formed() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    torch.library.opcheck(torch.ops.rankloom.expand.default, (x, REQUESTS))


def test_expansion_stays_one_node_of_an_exported_program() -> None:
    class Door(torch.nn.Module):
        def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            return expand(x, index) * 2

    rows, requests = torch.export.Dim("B", min=2), torch.export.Dim("R", min=2)
    program = torch.export.export(
        Door(),
        (torch.ones(3, 4), REQUESTS),
        dynamic_shapes=({0: requests}, {0: rows}),
        strict=False,
    )
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["rankloom.expand.default", "aten.mul.Tensor"]
    more = torch.tensor([0, 1, 1, 4, 4, 4])
    assert program.module()(torch.ones(5, 4), more).shape == (6, 4)
