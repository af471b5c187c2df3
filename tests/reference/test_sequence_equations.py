"""History encoders against NumPy written from the papers' equations, one event at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rankloom.layers.protocols import Inputs, SequenceLayout
from rankloom.schema import Rate
from rankloom.sequence.din import DIN, DINConfig
from rankloom.sequence.transformer import Transformer, TransformerConfig

Array = npt.NDArray[np.float64]
ALPHA = 0.4


def activate(x: Array, name: str) -> Array:
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name == "prelu":
        return np.where(x > 0, x, ALPHA * x)
    # Untrained Dice: mean 0 and variance 1.
    p = 1 / (1 + np.exp(-x / np.sqrt(1 + 1e-8)))
    return p * x + (1 - p) * ALPHA * x


@pytest.mark.parametrize("weights", ["raw", "softmax"])
@pytest.mark.parametrize("activation", ["prelu", "dice", "sigmoid"])
@pytest.mark.parametrize("training", [False, True])
def test_din(weights: str, activation: str, training: bool) -> None:
    layout = SequenceLayout(
        name="history",
        columns={"item": 2, "genre": 1},
        rate=Rate.USER,
        candidate={"item": "item"},
        max_length=4,
        has_times=False,
    )
    config = DINConfig.model_validate(
        {"hidden_dims": (5, 4), "activation": activation, "weights": weights}
    )
    unit = DIN(config, layout, generator=torch.Generator().manual_seed(0)).double().eval()
    # The first layer has a form for each mode; Dice stays with the statistics that it has.
    unit.training = training
    for parameter in unit.parameters():
        parameter.data += 0.1
    for module in unit.activations:
        if hasattr(module, "alpha"):
            module.alpha.data.fill_(ALPHA)
    w = {name: value.detach().numpy() for name, value in unit.state_dict().items()}

    random = np.random.default_rng(0)
    events, candidates = random.standard_normal((2, 4, 3)), random.standard_normal((2, 3))
    lengths = (4, 2)
    expected = []
    for history, c, length in zip(events, candidates, lengths, strict=True):
        real = history[4 - length :]
        scores = []
        for e in real:
            x = np.concatenate((e, c, e - c, e * c))
            x = activate(w["first.weight"] @ x + w["first.bias"], activation)
            x = activate(w["later.0.weight"] @ x + w["later.0.bias"], activation)
            scores.append((w["weigh.weight"] @ x + w["weigh.bias"])[0])
        a = np.array(scores)
        if weights == "softmax":
            a = np.exp(a) / np.exp(a).sum()
        expected.append(a @ real)

    mask = torch.tensor([[True] * 4, [False, False, True, True]])
    state = unit.encode(torch.from_numpy(events), mask, {})
    inputs = Inputs({}, {}, {}, torch.arange(2))
    out = unit.read(state, torch.from_numpy(candidates), inputs)[:, 0].detach().numpy()
    np.testing.assert_allclose(out, expected, rtol=1e-10)


def layer_norm(x: Array, gain: Array, shift: Array) -> Array:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + shift


def attend(query: Array, keys: Array, values: Array) -> Array:
    scores = np.exp([query @ key / np.sqrt(len(query)) for key in keys])
    return scores / scores.sum() @ values


def encode(real: Array, w: dict[str, Array]) -> Array:
    """Encode the real events of one history; three positions, two blocks, two heads of 3."""
    places = [min(len(real) - 1 - number, 2) for number in range(len(real))]
    x = [
        w["project.weight"] @ e + w["project.bias"] + w["positions"][place]
        for e, place in zip(real, places, strict=True)
    ]
    for i in range(2):
        p = {k.removeprefix(f"layers.{i}."): v for k, v in w.items()}
        normed = [
            layer_norm(one, p["attention_norm.weight"], p["attention_norm.bias"]) for one in x
        ]
        q, k, v = np.split(np.stack(normed) @ p["query_key_value"].T, 3, axis=1)
        for number in range(len(x)):
            heads = [
                attend(q[number, own], k[: number + 1, own], v[: number + 1, own])
                for own in (slice(0, 3), slice(3, 6))
            ]
            s = x[number] + p["out.weight"] @ np.concatenate(heads)
            up = p["up.weight"] @ layer_norm(s, p["feed_norm.weight"], p["feed_norm.bias"])
            hidden = np.maximum(up + p["up.bias"], 0)
            x[number] = s + p["down.weight"] @ hidden + p["down.bias"]
    return np.stack([layer_norm(one, w["norm.weight"], w["norm.bias"]) for one in x])


@pytest.mark.parametrize("read", ["target_attention", "newest"])
def test_transformer(read: str) -> None:
    layout = SequenceLayout(
        name="history",
        columns={"item": 2, "genre": 1},
        rate=Rate.USER,
        candidate={"item": "item", "genre": "genre"},
        max_length=5,
        has_times=False,
    )
    config = TransformerConfig.model_validate(
        {"dim": 6, "num_heads": 2, "expansion": 2, "max_positions": 3, "read": read}
    )
    generator = torch.Generator().manual_seed(0)
    encoder = Transformer(config, layout, generator=generator).double().eval()
    # Offsets, gains and small positions are made visible.
    for parameter in encoder.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    w = {name: value.detach().numpy() for name, value in encoder.state_dict().items()}

    random = np.random.default_rng(0)
    histories, candidates = random.standard_normal((3, 5, 3)), random.standard_normal((3, 3))
    lengths = (5, 2, 0)
    expected = []
    for history, c, length in zip(histories, candidates, lengths, strict=True):
        if not length:
            expected.append(np.zeros(6))
            continue
        encoded = encode(history[5 - length :], w)
        if read == "newest":
            expected.append(encoded[-1])
            continue
        query = w["query.weight"] @ c + w["query.bias"]
        heads = [attend(query[own], encoded[:, own], encoded[:, own])
                 for own in (slice(0, 3), slice(3, 6))]  # fmt: skip
        expected.append(np.concatenate(heads))

    mask = torch.arange(5) >= 5 - torch.tensor(lengths)[:, None]
    state = encoder.encode(torch.from_numpy(histories), mask, {})
    inputs = Inputs({}, {}, {}, torch.arange(3))
    out = encoder.read(state, torch.from_numpy(candidates), inputs)[:, 0].detach().numpy()
    np.testing.assert_allclose(out, expected, rtol=1e-10)
