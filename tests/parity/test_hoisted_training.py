"""Training on hoisted programs: the losses and gradients of the plain network."""

from __future__ import annotations

import pytest
from torch.testing import assert_close

from rankloom.contract import Subject
from rankloom.contract.subject import SLOTS
from rankloom.hoist import HoistedNetwork
from rankloom.losses import Loss

ARCHITECTURES = [(slot, name) for slot, table in SLOTS.items() for name in table]


@pytest.mark.parametrize(("slot", "name"), ARCHITECTURES)
def test_losses_and_gradients_are_the_plain_ones(slot: str, name: str) -> None:
    subject = Subject.in_slot(slot, name)
    model = subject.build().train()
    loss_fn = Loss(subject.schema, auxiliary_weights=model.network.auxiliary_weights)
    example = model.embedder(subject.batch()).inputs
    hoisted = HoistedNetwork(model.network, example)
    batch = subject.batch(rows_of_request=(5, 2, 1, 7), seed=4)
    found = []
    for network in (model.network, hoisted):
        model.network.zero_grad(set_to_none=True)
        inputs, lookups = model.embedder(batch)
        losses = loss_fn(network(inputs), batch)
        losses.total.backward()
        gradients = {n: p.grad for n, p in model.network.named_parameters()}
        vectors = [one.vectors.grad for one in lookups]
        found.append((losses.total.detach(), losses.auxiliary, gradients, vectors))
    # fp32 sums in another order.
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_parameters_keep_the_plain_names() -> None:
    subject = Subject.of("rankmixer")
    model = subject.build().train()
    hoisted = HoistedNetwork(model.network, model.embedder(subject.batch()).inputs)
    plain = {id(parameter) for parameter in model.network.parameters()}
    assert {id(parameter) for parameter in hoisted.parameters()} <= plain
