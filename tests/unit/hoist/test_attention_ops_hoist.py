"""Attention ops: histories at their own rate, candidates together over what a request holds."""

from __future__ import annotations

import pytest
import torch
from tests.unit.hoist.tiny import Tiny, flops, hoisted_equals_plain
from torch import Tensor

from rankloom.artifact.program_file import from_json, to_json
from rankloom.errors import HoistError
from rankloom.hoist import HoistedNetwork, hoist
from rankloom.ops import Bias, Mask, Weighting, attend, last_rows, read
from rankloom.schema import Rate

SOFTMAX = Weighting(kind="softmax", scale=0.5)
SILU = Weighting(kind="silu", scale=0.5, divisor=7.0)
N = 5
W = dict[str, Tensor]


def in_heads(x: Tensor) -> Tensor:
    return x.unflatten(2, (2, 4)).transpose(1, 2)


def lengths_of(u: Tensor) -> Tensor:
    """Between 0 and all events, different from user to user."""
    return (u[:, :, 0] > 0).sum(dim=1)


def targets(program: object) -> list[str]:
    return [str(node.target) for node in program.module.graph.nodes]  # type: ignore[attr-defined]


@pytest.mark.parametrize("weighting", [SOFTMAX, SILU])
def test_a_history_attends_once_a_user(weighting: Weighting) -> None:
    def body(u: Tensor, c: Tensor, w: W) -> Tensor:
        x = in_heads(u)
        bias = Bias(w["p"], w["t"], u[:, :, 1].abs().cumsum(1))
        mask = Mask(window=3, prefix=2, full_rows=2)
        y = attend(x, x, x, mask=mask, weighting=weighting, lengths=lengths_of(u), bias=bias)
        return y[:, :, :, 0].flatten(1) * c

    network = Tiny(body, {"u": (10, 8), "c": (20,)}, {"p": (2, 4), "t": (1, 3)})
    hoisted = hoisted_equals_plain(network)
    assert "rankloom.attend.default" in targets(hoisted.programs.by_rate[Rate.USER])
    assert "rankloom.attend.default" not in targets(hoisted.programs.by_rate[Rate.CANDIDATE])


def test_the_newest_rows_query_at_the_users_rate() -> None:
    def body(u: Tensor, c: Tensor) -> Tensor:
        lengths = lengths_of(u)
        x = in_heads(u)
        newest = in_heads(last_rows(u, lengths, 3))
        y = attend(newest, x, x, mask=Mask(), weighting=SILU, lengths=lengths)
        return y[:, :, :, 0].flatten(1) * c

    hoisted = hoisted_equals_plain(Tiny(body, {"u": (10, 8), "c": (6,)}))
    assert {"rankloom.attend.default", "rankloom.last_rows.default"} <= set(
        targets(hoisted.programs.by_rate[Rate.USER])
    )


def reading(weighting: Weighting, *, with_own: bool, with_bias: bool) -> Tiny:
    def body(u: Tensor, r: Tensor, c: Tensor, w: W) -> Tensor:
        key, value = in_heads(u @ w["k"]), in_heads(u @ w["v"])
        query = in_heads(c.unflatten(1, (3, 8)))
        own = (query * 2, query + 1) if with_own else None
        bias = Bias(w["p"], w["t"], r[:, :, 0].abs()) if with_bias else None
        y = read(query, key, value, weighting=weighting, lengths=lengths_of(u), own=own, bias=bias)
        return y.transpose(1, 2).flatten(1)

    shapes = {"u": (10, 8), "r": (10, 1), "c": (24,)}
    return Tiny(body, shapes, {"k": (8, 8), "v": (8, 8), "p": (2, 4), "t": (1, 3)})


@pytest.mark.parametrize("weighting", [SOFTMAX, SILU])
@pytest.mark.parametrize("with_own", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_candidates_read_together_what_a_request_holds(
    weighting: Weighting, with_own: bool, with_bias: bool
) -> None:
    network = reading(weighting, with_own=with_own, with_bias=with_bias)
    hoisted = hoisted_equals_plain(network)
    program = hoisted.programs.by_rate[Rate.CANDIDATE]
    # No candidate repeats the history: only its queries are moved.
    assert "rankloom.expand.default" not in targets(program)
    assert targets(program).count("rankloom.read.default") == 1
    assert "slots" in program.inputs
    assert not {"slots", "slot_of_row"} & set(hoisted.programs.one_request.inputs)


def test_keys_and_values_are_held_once_a_request() -> None:
    network = reading(SILU, with_own=True, with_bias=False)
    hoisted = hoisted_equals_plain(network)
    assert sorted(one.sizes[1:] for one in hoisted.state if len(one.sizes) == 4) == [
        (2, 10, 4),
        (2, 10, 4),
    ]
    counted = flops(hoisted, network, num_candidates=N)
    assert counted[Rate.USER] == 2 * (2 * 10 * 8 * 8)  # the two products of keys and values


def test_a_read_of_the_user_alone_is_the_users() -> None:
    def body(u: Tensor, c: Tensor, w: W) -> Tensor:
        x = in_heads(u)
        fixed = w["q"].expand(u.shape[0], -1, -1, -1)
        return read(fixed, x, x, weighting=SOFTMAX, lengths=lengths_of(u)).flatten(1)[:, :6] * c

    hoisted = hoisted_equals_plain(Tiny(body, {"u": (10, 8), "c": (6,)}, {"q": (1, 2, 3, 4)}))
    assert "rankloom.read.default" in targets(hoisted.programs.by_rate[Rate.USER])


def test_a_history_of_the_candidate_is_read_row_by_row() -> None:
    def body(u: Tensor, c: Tensor) -> Tensor:
        x = in_heads(c)
        return read(in_heads(u), x, x, weighting=SOFTMAX).flatten(1)

    hoisted = hoisted_equals_plain(Tiny(body, {"u": (3, 8), "c": (10, 8)}))
    assert "slots" not in hoisted.programs.by_rate[Rate.CANDIDATE].inputs


def test_a_program_of_these_ops_is_written_and_read() -> None:
    network = reading(SOFTMAX, with_own=True, with_bias=True)
    hoisted = hoisted_equals_plain(network)
    program = hoisted.programs.by_rate[Rate.CANDIDATE]
    again = from_json(to_json(program), dict(program.module.named_buffers()))
    assert [n.target for n in again.module.graph.nodes if n.op == "call_function"] == [
        n.target for n in program.module.graph.nodes if n.op == "call_function"
    ]


def test_rows_in_another_dimension_are_refused() -> None:
    def body(c: Tensor, u: Tensor) -> Tensor:
        x = c.transpose(0, 1)[None]
        return attend(x, x, x, mask=Mask(), weighting=SOFTMAX)[0].transpose(0, 1) + u

    network = Tiny(body, {"c": (3, 4), "u": (3, 4)})
    with pytest.raises(HoistError, match="attends over rows"):
        hoist(network.train(False), network.inputs())


def test_a_table_that_differs_from_user_to_user_is_refused() -> None:
    def body(u: Tensor, c: Tensor) -> Tensor:
        x = c[:, None]
        bias = Bias(positions=u)
        return attend(x, x, x, mask=Mask(), weighting=SOFTMAX, bias=bias)[:, 0]

    network = Tiny(body, {"c": (3, 4), "u": (5,)})
    with pytest.raises(HoistError, match="a table that differs from row to row"):
        hoist(network.train(False), network.inputs())


def test_gradients_of_hoisted_training_equal_the_plain_ones() -> None:
    network = reading(SILU, with_own=True, with_bias=True)
    inputs = network.inputs((0, 0, 1, 2, 2, 2), seed=3)
    hoisted = HoistedNetwork(network, network.inputs())
    given = []
    for form in (network, hoisted):
        loss = form(inputs).logits["t"].square().sum()
        given.append(torch.autograd.grad(loss, list(network.parameters())))
    for plain, other in zip(*given, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-10, atol=1e-10)
