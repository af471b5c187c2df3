"""History encoders against NumPy written from the papers' equations, one event at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rankloom.layers.protocols import Inputs, SequenceLayout
from rankloom.schema import Rate
from rankloom.sequence.din import DIN, DINConfig

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
