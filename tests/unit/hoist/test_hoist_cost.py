from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.unit.hoist.tiny import Tiny
from torch import Tensor

from rankloom.contract import Subject
from rankloom.hoist import hoist
from rankloom.hoist.cost import cost_by_rate
from rankloom.models.example import example_batch
from rankloom.schema import Rate

N = 50


def test_flops_and_state_of_a_divided_linear_layer() -> None:
    def body(u: Tensor, r: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        return F.linear(torch.cat([u, r, c], dim=1), w["w"])

    network = Tiny(body, {"u": (40,), "r": (10,), "c": (5,)}, {"w": (32, 55)})
    cost = cost_by_rate(network, hoist(network, network.inputs()), network.inputs((0,) * N))
    assert cost.plain_flops == 2 * 32 * 55 * N
    assert cost.flops_at(Rate.USER) == 2 * 32 * 40
    assert cost.flops_at(Rate.REQUEST) == 2 * 32 * 10
    assert cost.flops_at(Rate.CANDIDATE) == 2 * 32 * 5 * N
    after = 2 * 32 * (40 + 10 + 5 * N)
    assert cost.hoisted_share == 1 - after / cost.plain_flops
    # The sum of both crosses, in fp64; the user's part crosses to the request.
    assert cost.state_bytes == {Rate.USER: 32 * 8, Rate.REQUEST: 32 * 8}


def test_parts_of_a_model() -> None:
    model = Subject.of("din").build().train(False)
    hoisted = hoist(model.network, model.embedder(example_batch(model)).inputs)
    batch = example_batch(model, rows_of_request=(N,), full_histories=True)
    cost = cost_by_rate(model.network, hoisted, model.embedder(batch).inputs)
    names = [part.name for part in cost.parts]
    assert names == ["histories", "tokenization", "interaction", "head"]
    histories, tokenization = cost.parts[:2]
    # Every product of the unit has the candidate in it.
    assert histories.plain_flops == histories.flops[Rate.CANDIDATE] > 0
    assert not histories.flops.get(Rate.USER)
    # The profile's token, and its columns of the global token.
    profile = 2 * 16 * 24 * 2
    assert tokenization.flops[Rate.USER] == profile
    moment = tokenization.flops[Rate.REQUEST]
    saved = tokenization.plain_flops - tokenization.flops[Rate.CANDIDATE]
    assert saved == N * (profile + moment)
