from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.unit.hoist.tiny import Tiny, flops, hoisted_equals_plain
from torch import Tensor, nn

from rankloom.errors import HoistError
from rankloom.hoist import Options
from rankloom.layers.protocols import Inputs, Output
from rankloom.ops import layer_norm_fp32, rms_norm_fp32, softmax_fp32, swiglu
from rankloom.schema import Rate

N = 50


def test_linear_over_a_concatenation_is_divided_by_columns() -> None:
    def body(u: Tensor, r: Tensor, c: Tensor, u2: Tensor, w: dict[str, Tensor]) -> Tensor:
        return F.linear(torch.cat([u, c, r, u2], dim=1), w["w"], w["b"])

    network = Tiny(
        body, {"u": (40,), "r": (10,), "c": (5,), "u2": (20,)}, {"w": (32, 75), "b": (32,)}
    )
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted == {
        Rate.USER: 2 * 32 * (40 + 20),
        Rate.REQUEST: 2 * 32 * 10,
        Rate.CANDIDATE: 2 * 32 * 5 * N,
    }


def test_fragmented_layout_multiplies_each_part_by_itself() -> None:
    def body(u: Tensor, c: Tensor, u2: Tensor, w: dict[str, Tensor]) -> Tensor:
        return F.linear(torch.cat([u, c, u2], dim=1), w["w"])

    network = Tiny(body, {"u": (40,), "c": (5,), "u2": (20,)}, {"w": (32, 65)})
    counts = {}
    for layout in ("neat", "fragmented"):
        hoisted = hoisted_equals_plain(network, Options(layout=layout))
        graph = hoisted.programs.by_rate[Rate.USER].module.graph
        counts[layout] = sum("linear" in str(node.target) for node in graph.nodes)
    assert counts == {"neat": 1, "fragmented": 2}


def test_columns_stay_apart_through_reshape_permute_slice_and_norm() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        x = torch.cat([u.unflatten(1, (4, 8)), c.unflatten(1, (2, 8))], dim=1)
        x = rms_norm_fp32(x, w["g"]) * 2 + 1
        x = x.permute(1, 0, 2).transpose(0, 1)[:, 1:]
        return F.linear(x.flatten(1).relu(), w["w"])

    network = Tiny(body, {"u": (32,), "c": (16,)}, {"w": (64, 40), "g": (8,)})
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] == 2 * 64 * 24
    assert counted[Rate.CANDIDATE] == 2 * 64 * 16 * N


def test_weights_per_token_are_cut_with_the_tokens() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        x = torch.cat([u, c], dim=1).transpose(0, 1)
        x = torch.baddbmm(w["b"][:, None], x, w["w"]).transpose(0, 1)
        return swiglu(x).mean(dim=1)

    network = Tiny(body, {"u": (3, 8), "c": (2, 8)}, {"w": (5, 8, 12), "b": (5, 12)})
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] == 2 * 3 * 8 * 12
    assert counted[Rate.CANDIDATE] == 2 * 2 * 8 * 12 * N


def test_mixed_columns_of_a_batched_product_are_divided() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        return torch.bmm(torch.cat([u, c], dim=2).transpose(0, 1), w["w"]).transpose(0, 1)

    network = Tiny(body, {"u": (3, 24), "c": (3, 8)}, {"w": (3, 32, 64)})
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] == 2 * 3 * 24 * 64
    assert counted[Rate.CANDIDATE] == 2 * 3 * 8 * 64 * N


@pytest.mark.parametrize("equation", ["btd,tdo->bto", "btd,odt->bo"])
def test_einsum_is_divided(equation: str) -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        return torch.einsum(equation, torch.cat([u, c], dim=1), w["w"])

    shape = (5, 8, 32) if equation.startswith("btd,tdo") else (32, 8, 5)
    network = Tiny(body, {"u": (3, 8), "c": (2, 8)}, {"w": shape})
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] == 2 * 3 * 8 * 32
    assert counted[Rate.CANDIDATE] == 2 * 2 * 8 * 32 * N


def test_difference_and_product_of_an_activation_unit() -> None:
    """[e, c, e - c, e * c] W = e (We + Wd) + c (Wc - Wd) + (e * c) Wp (DIN)."""

    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        c_BLD = c[:, None].expand(-1, u.shape[1], -1)
        mixed = torch.cat([u, c_BLD, u - c_BLD, u * c_BLD], dim=2)
        weights = F.linear(F.linear(mixed, w["w"], w["b"]).relu(), w["v"])
        return torch.bmm(weights.transpose(1, 2), u)[:, 0]

    network = Tiny(body, {"u": (20, 8), "c": (8,)}, {"w": (64, 32), "b": (64,), "v": (1, 64)})
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    events, tail = 2 * 20 * 64 * 8, 2 * 20 * 64 + 2 * 20 * 8
    # e and e of (e - c) are two columns of one product; the candidate's part is one event long.
    assert counted[Rate.USER] == 2 * events
    assert counted[Rate.CANDIDATE] == (events + 2 * (2 * 64 * 8) + tail) * N


def test_a_sum_of_rates_passes_through_scaling_and_reshaping() -> None:
    def body(u: Tensor, r: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        x = F.linear(torch.cat([u, r, c], dim=1), w["w"], w["b"])
        return (-(x / 2) * w["b"] + 3 - c.sum(dim=1, keepdim=True)).view(-1, 4, 8)[:, 1]

    network = Tiny(body, {"u": (40,), "r": (3,), "c": (5,)}, {"w": (32, 48), "b": (32,)})
    hoisted_equals_plain(network)


def test_attention_over_a_users_keys_takes_all_candidates_together() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        keys, values = F.linear(u, w["k"]), F.linear(u, w["v"])
        heads = [x.unflatten(-1, (2, 4)).transpose(1, 2) for x in (c[:, None], keys, values)]
        return F.scaled_dot_product_attention(*heads)[:, :, 0].flatten(1)

    network = Tiny(body, {"u": (10, 6), "c": (8,)}, {"k": (8, 6), "v": (8, 6)})
    hoisted = hoisted_equals_plain(network)
    counted = flops(hoisted, network, num_candidates=N)
    assert counted[Rate.USER] == 2 * 2 * 10 * 6 * 8
    state = {one.name: one.sizes for one in hoisted.state}
    assert all(len(sizes) == 4 for sizes in state.values())  # keys and values, never B rows


@pytest.mark.parametrize("heads", [False, True])
def test_softmax_attention_by_hand(heads: bool) -> None:
    def body(u: Tensor, c: Tensor) -> Tensor:
        if heads:
            q, k = c.view(-1, 1, 2, 4).transpose(1, 2), u.unflatten(2, (2, 4)).transpose(1, 2)
            return torch.matmul(torch.softmax(torch.matmul(q, k.transpose(2, 3)), -1), k).flatten(1)
        weights = softmax_fp32(torch.bmm(c[:, None], u.transpose(1, 2)), -1)
        return torch.bmm(weights, u)[:, 0]

    hoisted = hoisted_equals_plain(Tiny(body, {"u": (10, 8), "c": (8,)}))
    graph = hoisted.programs.by_rate[Rate.CANDIDATE].module.graph
    assert not any("rankloom.expand" in str(node.target) for node in graph.nodes)
    # One request has all its candidates side by side already.
    assert "slots" in hoisted.programs.by_rate[Rate.CANDIDATE].inputs
    assert not {"slots", "slot_of_row"} & set(hoisted.programs.one_request.inputs)


def test_a_requests_matrix_that_is_small_beside_its_product_is_repeated() -> None:
    """`u (W diag(c))` (B, 10, 64): to repeat u (10, 8) costs less than to turn the product."""

    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        shift = F.linear(c, w["b"])[:, None]
        return torch.baddbmm(shift, u, c[:, :, None] * w["w"])

    network = Tiny(body, {"u": (10, 8), "c": (8,)}, {"w": (8, 64), "b": (64, 8)})
    program = hoisted_equals_plain(network).programs.one_request
    names = [str(node.target) for node in program.module.graph.nodes]
    assert names.count("aten.baddbmm.default") == 1
    assert not any("einsum" in name or "add.Tensor" in name for name in names)


def test_a_norm_over_mixed_columns_is_left_alone() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        x = layer_norm_fp32(torch.cat([u, c], dim=1), w["g"], w["b"])
        return F.linear(x, w["w"])

    network = Tiny(body, {"u": (40,), "c": (8,)}, {"w": (32, 48), "g": (48,), "b": (48,)})
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] == 0
    assert counted[Rate.CANDIDATE] == 2 * 48 * 32 * N


def test_batch_norm_scales_by_its_kept_statistics() -> None:
    norm = nn.BatchNorm1d(48, dtype=torch.float64).train(False)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))

    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        return F.linear(norm(torch.cat([u, c], dim=1)), w["w"])

    network = Tiny(body, {"u": (40,), "c": (8,)}, {"w": (32, 48)})
    network.norm = norm  # so that its parameters are the network's
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] == 2 * 40 * 32


def of_torch(network: Tiny, *modules: nn.Module) -> Tiny:
    """Make modules part of a network, so that their parameters are its own."""
    network.modules_of_torch = nn.ModuleList(modules)
    return network.double()


def test_torchs_own_attention_over_a_users_history() -> None:
    """Its output merges (L, B) to L B rows, which is not how rows lie."""
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def body(u: Tensor, c: Tensor) -> Tensor:
        history = attention(u, u, u, need_weights=False)[0]
        return attention(c[:, None], history, u, need_weights=False)[0][:, 0]

    network = of_torch(Tiny(body, {"u": (10, 8), "c": (8,)}), attention)
    hoisted = hoisted_equals_plain(network)
    graph = hoisted.programs.by_rate[Rate.CANDIDATE].module.graph
    assert not any("rankloom.expand" in str(node.target) for node in graph.nodes)


@pytest.mark.parametrize(
    ("module", "read"),
    [
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), lambda m, u: m(u).mean(dim=1)),
        (nn.GRU(8, 8, batch_first=True), lambda m, u: m(u)[1][0]),
        (nn.LSTM(8, 8), lambda m, u: m(u.transpose(0, 1))[0][-1]),
        (nn.Conv1d(8, 8, 3), lambda m, u: m(u.transpose(1, 2)).amax(dim=2)),
    ],
)
@pytest.mark.filterwarnings("ignore:The tensor attributes")  # a GRU's list of its own weights
def test_torchs_own_encoders_run_once_a_user(
    module: nn.Module, read: Callable[[nn.Module, Tensor], Tensor]
) -> None:
    network = of_torch(Tiny(lambda u, c: read(module, u) * c, {"u": (10, 8), "c": (8,)}), module)
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] > 0
    assert counted[Rate.CANDIDATE] == 0


def test_gathered_and_sorted_events_are_a_users() -> None:
    def body(u: Tensor, c: Tensor) -> Tensor:
        best = u.sum(dim=2).topk(3, dim=1).indices
        events = torch.gather(u, 1, best[:, :, None].expand(-1, -1, 8))
        return torch.triu(torch.bmm(events, events.transpose(1, 2))).sum(dim=(1, 2)) * c[:, 0]

    network = Tiny(body, {"u": (10, 8), "c": (8,)})
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] > 0
    assert counted[Rate.CANDIDATE] == 0


def test_writing_in_place_is_no_obstacle() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        x = torch.cat([u, c], dim=1).relu_()
        x += 1
        return F.linear(x, w["w"]).mul_(2)

    hoisted_equals_plain(Tiny(body, {"u": (40,), "c": (8,)}, {"w": (32, 48)}))


def test_a_tiny_users_part_is_not_divided() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        return F.linear(torch.cat([u, c], dim=1), w["w"])

    network = Tiny(body, {"u": (2,), "c": (40,)}, {"w": (32, 42)})
    hoisted = hoisted_equals_plain(network)
    (decision,) = hoisted.decisions
    assert not decision.is_done
    assert flops(hoisted, network, num_candidates=N)[Rate.CANDIDATE] == 2 * 42 * 32 * N


def test_learned_tokens_are_constants() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        token = w["token"].expand(c.shape[0], 1, 8)
        x = torch.cat([token, u, c], dim=1)
        return F.linear(x, w["w"]).sum(dim=1)

    network = Tiny(body, {"u": (3, 8), "c": (2, 8)}, {"token": (1, 1, 8), "w": (16, 8)})
    counted = flops(hoisted_equals_plain(network), network, num_candidates=N)
    assert counted[Rate.USER] == 2 * 3 * 8 * 16
    assert counted[Rate.CANDIDATE] == 2 * 2 * 8 * 16 * N


@pytest.mark.parametrize("tail", ["u", "c"])
def test_a_constant_beside_a_users_value_has_its_rows(tail: str) -> None:
    def body(u: Tensor, c: Tensor) -> Tensor:
        x = torch.cat([u, u.new_zeros(u.shape[0], 3)], dim=1)
        ones = c.new_ones(c.shape[0], 2)
        return softmax_fp32(x).sum(1) * (c.sum(1) if tail == "c" else ones.sum(1))

    hoisted_equals_plain(Tiny(body, {"u": (4,), "c": (2,)}))


def test_a_constant_result_has_all_rows() -> None:
    hoisted_equals_plain(Tiny(lambda u, c: u.new_ones(c.shape[0]), {"u": (4,), "c": (2,)}))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (lambda u, c: u + c.mean(dim=0), "runs along rows"),
        (lambda u, c: (u + c).flip(0), "runs along rows"),
        (lambda u, c: torch.softmax(u * c, dim=0), "runs along rows"),
        (lambda u, c: u * c.cumsum(0), "runs along rows"),
        (lambda u, c: F.linear(u, c.t() @ c), "sums over rows"),
        (lambda u, c: (u + c)[1:], "cannot capture"),  # B - 1 rows
        (lambda u, c: (u + c)[0], "selects a row"),
        (lambda u, c: torch.cat([u, c], dim=0), "concatenates rows"),
        (lambda u, c: (u + c).roll(1, 0), "nothing is known of"),
        (lambda u, c: (u + c).t().reshape(-1), "merges rows"),
    ],
)
def test_what_mixes_rows_is_refused(body: object, what: str) -> None:
    with pytest.raises(HoistError, match=what):
        hoisted_equals_plain(Tiny(body, {"u": (8,), "c": (8,)}))  # type: ignore[arg-type]


def test_a_refusal_names_the_source_line() -> None:
    class Rolls(Tiny):
        def forward(self, inputs: Inputs) -> Output:
            return Output({"t": inputs.features["c"].roll(1, 0)}, {})

    with pytest.raises(HoistError, match=r"test_hoist_rules\.py.*, line \d+, in forward"):
        hoisted_equals_plain(Rolls(torch.add, {"u": (8,), "c": (8,)}))
