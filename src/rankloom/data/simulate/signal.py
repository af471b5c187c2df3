"""The true logit of a click, part by part, and what follows a click.

    logit = intercept + sum over parts of strength * (raw - mean) / deviation

The raw parts of user u at moment m (hour, weekday, network) in scenario s, item i at place n:

    main       appeal_i + effects of u's and m's values
    taste      <t_u, q_i>,  t_u the sum of u's attributes' vectors, q_i the item's character
    pairs      sum over planted crosses of sign(u or m) * sign(i)
    triples    sum over planted crosses of sign(u) * sign(m) * sign(i)
    near_past  <mean of the near past's characters, the newer the heavier, q_i>
    far_past   log(1 + events of i's category in the far past)
    scenario   <turn_s * t_u + taste_s, q_i>
    position   -log(1 + n)

All of it is a function of columns that the log carries. What users do afterwards follows the same
parts: likes follow taste and near past, purchases main, far past and pairs, and the share of a
video that is watched taste and near past.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankloom.data.simulate.config import RatesConfig, SignalConfig
from rankloom.data.simulate.people import People
from rankloom.data.simulate.world import DIM, Float32, Int32, World

PARTS = tuple(SignalConfig.model_fields)
"""Names of the parts."""
RELEVANCE_PARTS = tuple(name for name in PARTS if name != "position")
"""Those of the candidate itself, wherever it is shown."""
NEAR_DECAY = 0.9
"""Weight of an event of the near past against that of the next newer one."""
WATCH_SHAPE = 2.0
"""Of the gamma distribution of the watch time around its mean."""
_AFTER = {"like": ("taste", "near_past"), "buy": ("main", "far_past", "pairs")}
_WATCHED = ("taste", "near_past")

Parts = dict[str, Float32]
"""Part -> (V,) or (R, N) values."""
Truth = dict[str, Float32]
"""What is true of each row before anything happens there, (V,): the probabilities of a `click`, of
the same at the first place (`click_unbiased`), of a click and a `like` and of a click and a `buy`;
and the mean of the seconds watched (`watch_s`), which are 0 without a click."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Some requests, of different users, and what is shown."""

    user: npt.NDArray[np.int64]
    """(R,): place of each user in the block."""
    moment: dict[str, Int32]
    """Attribute -> (R,)."""
    scenario: Int32
    """(R,)."""
    item: Int32
    """(R, N), in the order shown."""
    is_shown: npt.NDArray[np.bool_]
    """(R, N): False for padding."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What makes the parts have the strengths, and the events the rates, that the config names."""

    mean: dict[str, float]
    """Part -> mean of its raw values."""
    deviation: dict[str, float]
    """Part -> their deviation."""
    intercept: dict[str, float]
    """click, like, buy -> what its logit starts from."""


def raw_parts(world: World, people: People, requests: Requests) -> Parts:
    """Compute each part's raw values, (R, N)."""
    items, item, user = world.items, requests.item, requests.user
    attributes = {name: values[user] for name, values in people.attributes.items()}
    moment = attributes | requests.moment
    effects = np.sum([world.effect[name][values] for name, values in moment.items()], axis=0)
    taste = np.sum([world.taste[name][values] for name, values in attributes.items()], axis=0)
    taste /= np.float32(np.sqrt(len(attributes)))
    turned = (
        world.scenario_turn[requests.scenario] * taste + world.scenario_taste[requests.scenario]
    )
    # One gather of the items' characters serves three parts.
    against = np.stack((taste, _near_past(world, people, user), turned), axis=2)
    met = items.character[item] @ against
    crosses = {
        part: np.matmul(signs[item], world.request_signs(part, moment)[:, :, None])[:, :, 0]
        for part, signs in items.signs.items()
    }
    count = people.histories.far_count[user[:, None], items.category[item]]
    place = np.arange(item.shape[1], dtype=np.float32)
    return {
        "main": items.appeal[item] + effects[:, None],
        "taste": met[:, :, 0],
        **crosses,
        "near_past": met[:, :, 1],
        "far_past": np.log1p(count, dtype=np.float32),
        "scenario": met[:, :, 2],
        "position": np.broadcast_to(-np.log1p(place), item.shape),
    }


def _near_past(world: World, people: People, user: npt.NDArray[np.int64]) -> Float32:
    """Give (R, D): the weighted mean of the near past's characters, 0 for an empty history."""
    near = people.histories.near
    item, exists = people.histories.newest(user, near)
    weight = exists * np.float32(NEAR_DECAY) ** np.arange(near, dtype=np.float32)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
    found: Float32 = np.matmul(weight[:, None].astype(np.float32), world.items.character[item])
    return found.reshape(len(user), DIM)


def scale_parts(raw: Parts, signal: SignalConfig, calibration: Calibration) -> Parts:
    """Give the parts as they stand in the logit."""
    return {
        name: np.float32(getattr(signal, name) / calibration.deviation[name])
        * (values - np.float32(calibration.mean[name]))
        for name, values in raw.items()
    }


def truth_of(
    parts: Parts, duration_s: Float32, signal: SignalConfig, calibration: Calibration
) -> Truth:
    """Give what follows from the scaled parts.

    Args:
        parts: Of `scale_parts`.
        duration_s: Of the items, in the shape of the parts.
        signal: Strengths of the parts.
        calibration: That the parts were scaled by.
    """
    logit = sum(parts.values()) + np.float32(calibration.intercept["click"])
    click = _sigmoid(logit)
    first = -calibration.mean["position"] / calibration.deviation["position"]
    unbiased = logit - parts["position"] + np.float32(signal.position * first)
    after = {
        name: _sigmoid(sum(parts[part] for part in members) + calibration.intercept[name])
        for name, members in _AFTER.items()
    }
    return {
        "click": click,
        "click_unbiased": _sigmoid(unbiased),
        "like": click * after["like"],
        "watch_s": click * duration_s * _sigmoid(sum(parts[part] for part in _WATCHED)),
        "buy": click * after["buy"],
    }


def calibrate(raw: Parts, signal: SignalConfig, rates: RatesConfig) -> Calibration:
    """Find means, deviations and intercepts from the raw parts, (V,), of typical rows."""
    unscaled = Calibration(
        mean={name: float(values.mean(dtype=np.float64)) for name, values in raw.items()},
        # A part that does not vary, such as the position of single candidates, adds nothing.
        deviation={
            name: float(values.std(dtype=np.float64)) or 1.0 for name, values in raw.items()
        },
        intercept={},
    )
    parts = scale_parts(raw, signal, unscaled)
    logit = np.asarray(sum(parts.values()))
    click = _intercept(logit, np.ones_like(logit), rates.click)
    chance = _sigmoid(logit + np.float32(click))
    after = {
        name: _intercept(
            np.asarray(sum(parts[part] for part in members)), chance, getattr(rates, name)
        )
        for name, members in _AFTER.items()
    }
    return Calibration(
        mean=unscaled.mean, deviation=unscaled.deviation, intercept={"click": click, **after}
    )


def _intercept(logit: Float32, weight: Float32, rate: float) -> float:
    """Find by bisection the intercept at which the weighted mean probability is `rate`."""
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        if np.average(_sigmoid(logit + np.float32(middle)), weights=weight) < rate:
            low = middle
        else:
            high = middle
    return middle


def _sigmoid(x: object) -> Float32:
    return np.asarray(1 / (1 + np.exp(-np.asarray(x, np.float32))), np.float32)


def logit_of(probability: Float32) -> Float32:
    """Give the logit of probabilities."""
    return np.log(probability) - np.log1p(-probability)
