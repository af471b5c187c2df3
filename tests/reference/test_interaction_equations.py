"""Interactions against NumPy written from the papers' equations, one row and token at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rankloom.config import resolve
from rankloom.interaction import INTERACTIONS
from rankloom.layers.protocols import Layout, TokenLayout, Tokens, run_layers

Array = npt.NDArray[np.float64]


def build(kind: str, *, tokens: int = 0, dim: int, **options: Any) -> Any:
    cls = resolve(kind, INTERACTIONS, path="kind")
    layout = TokenLayout(gives=cls.takes, num_candidate=tokens, dim=dim)
    generator = torch.Generator().manual_seed(0)
    module = cls(cls.Config(**options), Layout(features={}, tokens=layout), generator=generator)
    # Biases, gains and small matrices are made visible.
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


def weights(module: torch.nn.Module) -> dict[str, Array]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def draw(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


def run(module: Any, x: Array) -> Array:
    given = torch.from_numpy(x)
    tokens = Tokens(given[:, :0], given[:, :0], given) if x.ndim == 3 else given
    out: Array = run_layers(module, tokens).readout().detach().numpy()
    return out


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def layer_norm(x: Array, gain: Array, shift: Array) -> Array:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + shift


def rms_norm(x: Array, gain: Array) -> Array:
    return x / np.sqrt((x**2).mean() + 1e-6) * gain


def mix(x: Array, heads: int) -> Array:
    size = x.shape[1] // heads
    return np.stack(
        [np.concatenate([t[h * size : (h + 1) * size] for t in x]) for h in range(heads)]
    )


def revert(x: Array, tokens: int) -> Array:
    size = x.shape[1] // tokens
    return np.stack(
        [np.concatenate([s[t * size : (t + 1) * size] for s in x]) for t in range(tokens)]
    )


def test_rankmixer() -> None:
    network = build("rankmixer", tokens=3, dim=6, num_layers=2, expansion=2)
    w, rows = weights(network), draw(2, 3, 6)
    expected = []
    for x in rows:
        for i in range(2):
            p = {k.removeprefix(f"layers.{i}."): v for k, v in w.items()}
            s = [
                layer_norm(m + t, p["mix_norm.weight"], p["mix_norm.bias"])
                for m, t in zip(mix(x, 3), x, strict=True)
            ]
            out = []
            for t in range(3):
                up = s[t] @ p["feed_forward.up.weight"][t] + p["feed_forward.up.bias"][t]
                down = p["feed_forward.down.weight"][t]
                v = gelu(up) @ down + p["feed_forward.down.bias"][t]
                out.append(layer_norm(v + s[t], p["out_norm.weight"], p["out_norm.bias"]))
            x = np.stack(out)
        expected.append(x.mean(axis=0))
    np.testing.assert_allclose(run(network, rows), expected, rtol=1e-10)


def swiglu_network(x: Array, w: dict[str, Array], name: str, t: int) -> Array:
    both = x @ w[f"{name}.gate_up.weight"][t] + w[f"{name}.gate_up.bias"][t]
    gate, up = np.split(both, 2)
    return gate * sigmoid(gate) * up @ w[f"{name}.down.weight"][t] + w[f"{name}.down.bias"][t]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("heads", [2, 4, 8])
def test_tokenmixer_large(norm: str, heads: int) -> None:
    network = build(
        "tokenmixer_large",
        tokens=3, dim=8, num_layers=5, num_heads=heads, norm=norm, inter_residual_every=2,
    )  # fmt: skip
    w, rows = weights(network), draw(2, 3, 8)

    def branch(x: Array, residual: Array, name: str) -> Array:
        gain, out = w[f"{name}.norm.weight"], []
        for t, (one, other) in enumerate(zip(x, residual, strict=True)):
            if norm == "pre":
                inner = swiglu_network(rms_norm(one, gain), w, f"{name}.feed_forward", t)
                out.append(other + inner)
            else:
                inner = swiglu_network(one, w, f"{name}.feed_forward", t)
                out.append(rms_norm(other + inner, gain))
        return np.stack(out)

    expected = []
    for x in rows:
        group = x
        for number in range(1, 6):
            name = f"layers.{number - 1}.block"
            mixed = mix(x, heads)
            mixed = branch(mixed, mixed, f"{name}.mixed")
            x = branch(revert(mixed, 3), x, f"{name}.tokens")
            if number in (2, 4):
                x = group = x + group
        expected.append(np.mean([rms_norm(t, w["norm.weight"]) for t in x], axis=0))
    np.testing.assert_allclose(run(network, rows), expected, rtol=1e-10)


@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
@pytest.mark.parametrize("activation", ["tanh", "none"])
def test_dcn_v2_mixture_of_low_rank_experts(gate: str, activation: str) -> None:
    network = build(
        "dcn_v2",
        dim=6, num_layers=2, rank=2, num_experts=3, gate=gate, expert_activation=activation,
        hidden_dims=(), structure="stacked",
    )  # fmt: skip
    w, rows = weights(network), draw(2, 6)
    expected = []
    for x0 in rows:
        x = x0
        for i in range(2):
            p = {k.removeprefix(f"layers.{i}.cross."): v for k, v in w.items()}
            scores = p["gate.weight"] @ x
            gates = np.exp(scores) / np.exp(scores).sum() if gate == "softmax" else sigmoid(scores)
            total = x
            for e in range(3):
                own = slice(2 * e, 2 * e + 2)
                h = p["down"][own] @ x
                if activation == "tanh":
                    h = np.tanh(np.tanh(h) @ p["core"][e])
                total = total + gates[e] * x0 * (p["up"][:, own] @ h + p["bias"])
            x = total
        expected.append(x)
    np.testing.assert_allclose(run(network, rows), expected, rtol=1e-10)


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
def test_dcn_v2_full_rank(structure: str) -> None:
    network = build("dcn_v2", dim=4, num_layers=2, hidden_dims=(3,), structure=structure)
    w, rows = weights(network), draw(2, 4)
    expected = []
    for x0 in rows:
        x = x0
        for i in range(2):
            name = f"layers.{i}.cross.projection"
            x = x0 * (w[f"{name}.weight"] @ x + w[f"{name}.bias"]) + x
        source = x if structure == "stacked" else x0
        name = "layers.2.hidden.0"
        deep = np.maximum(w[f"{name}.weight"] @ source + w[f"{name}.bias"], 0)
        expected.append(deep if structure == "stacked" else np.concatenate((x, deep)))
    np.testing.assert_allclose(run(network, rows), expected, rtol=1e-10)


def test_mlp() -> None:
    network = build("mlp", dim=4, hidden_dims=(5, 3))
    w, rows = weights(network), draw(2, 4)
    expected = rows
    for i in range(2):
        name = f"layers.{i}.hidden.0"
        expected = np.maximum(expected @ w[f"{name}.weight"].T + w[f"{name}.bias"], 0)
    np.testing.assert_allclose(run(network, rows), expected, rtol=1e-10)
