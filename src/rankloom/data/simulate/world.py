"""The world that a log comes from: items and attributes with their hidden effects, drawn once.

Every effect is a table over values that stand in the log, so that a model can learn all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankloom.data.simulate.config import SimulationConfig

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Generator = np.random.Generator

DIM = 8
"""Width of an item's character and of a taste."""
USER_ATTRIBUTES = {"gender": 3, "age": 8, "city": 40, "device": 6, "membership": 4}
MOMENT_ATTRIBUTES = {"hour": 24, "weekday": 7, "network": 4}
ITEM_ATTRIBUTES = {"tag": 30, "price": 10, "style": 12}
"""Attribute -> number of values."""
CROSSES = {
    "pairs": (("device", "tag"), ("hour", "price"), ("city", "style")),
    "triples": (
        ("gender", "network", "style"),
        ("membership", "weekday", "price"),
        ("age", "network", "tag"),
    ),
}
"""Part of the signal -> attributes whose signs are multiplied; the last is the item's."""
Sign = dict[tuple[str, int, str], Float32]
"""(part, number of the cross, attribute) -> (values,) of +1 and -1."""


@dataclass(frozen=True, kw_only=True)
class Items:
    """All items, and how they are drawn."""

    category: Int32
    """(I,)."""
    creator: Int32
    """(I,)."""
    attributes: dict[str, Int32]
    """Attribute -> (I,) values."""
    duration_s: Float32
    """(I,) length of the item in seconds."""
    character: Float32
    """(I, D): what tastes meet; unit variance."""
    appeal: Float32
    """(I,): the item's own part of the logit."""
    signs: dict[str, Float32]
    """Part -> (I, number of its crosses) of +1 and -1."""
    log_popularity: Float32
    """(I,)."""
    order: Int32
    """(I,): items sorted by category."""
    cumulative: npt.NDArray[np.float64]
    """(I + 1,): summed popularity in that order."""
    first_of_category: npt.NDArray[np.int64]
    """(C + 1,): where each category begins in that order."""

    def draw(self, category: Int32, rng: Generator) -> Int32:
        """Draw an item of each category, or of all where it is -1, by popularity."""
        low = np.where(category < 0, 0, self.first_of_category[category])
        high = np.where(category < 0, len(self.order), self.first_of_category[category + 1])
        low_sum, high_sum = self.cumulative[low], self.cumulative[high]
        place = low_sum + (high_sum - low_sum) * rng.random(category.shape)
        found = np.searchsorted(self.cumulative, place, side="right") - 1
        # The sum's rounding may point one past the end of the category.
        return self.order[np.clip(found, low, np.maximum(high - 1, low))]


@dataclass(frozen=True, kw_only=True)
class World:
    """Items and the effects of everybody's attributes."""

    items: Items
    """What is shown."""
    category_share: npt.NDArray[np.float64]
    """(C,): how often a category is somebody's interest."""
    taste: dict[str, Float32]
    """User attribute -> (values, D)."""
    effect: dict[str, Float32]
    """User's or moment's attribute -> (values,) part of the logit."""
    sign: Sign
    """Of each value in each cross."""
    scenario_turn: Float32
    """(S, D): what a scenario multiplies the user's taste by."""
    scenario_taste: Float32
    """(S, D): its own taste."""

    def request_signs(self, part: str, columns: Mapping[str, Int32]) -> Float32:
        """Give (R, number of crosses): the product of the signs of all but the item."""
        return np.stack(
            [
                np.prod([self.sign[part, place, one][columns[one]] for one in others], axis=0)
                for place, (*others, _) in enumerate(CROSSES[part])
            ],
            axis=1,
        )


def build_world(config: SimulationConfig, rng: Generator) -> World:
    """Draw a world."""
    sizes = USER_ATTRIBUTES | MOMENT_ATTRIBUTES | ITEM_ATTRIBUTES
    sign = {
        (part, place, name): _balanced_signs(sizes[name], rng)
        for part, crosses in CROSSES.items()
        for place, names in enumerate(crosses)
        for name in names
    }
    items, category_share = _build_items(config, sign, rng)
    num_scenarios = config.requests.scenarios
    return World(
        items=items,
        category_share=category_share,
        taste={name: _normal(rng, count, DIM) for name, count in USER_ATTRIBUTES.items()},
        effect={
            name: _normal(rng, count)
            for name, count in (USER_ATTRIBUTES | MOMENT_ATTRIBUTES).items()
        },
        sign=sign,
        scenario_turn=_normal(rng, num_scenarios, DIM),
        scenario_taste=_normal(rng, num_scenarios, DIM),
    )


def _build_items(
    config: SimulationConfig, sign: Sign, rng: Generator
) -> tuple[Items, npt.NDArray[np.float64]]:
    count, num_categories = config.items.count, config.items.categories
    num_creators = config.items.creators
    category_share = 1 / (np.arange(num_categories) + 5.0)
    category_share /= category_share.sum()
    home = rng.choice(num_categories, size=num_creators, p=category_share)
    creator = (num_creators * rng.random(count) ** 1.5).astype(np.int32)
    wanders = rng.random(count) < 0.15
    category = np.where(
        wanders, rng.choice(num_categories, size=count, p=category_share), home[creator]
    ).astype(np.int32)
    # Every category has an item: an interest in an empty one could not be drawn from.
    category[rng.permutation(count)[:num_categories]] = np.arange(num_categories)[:count]
    attributes = {
        name: rng.integers(values, size=count, dtype=np.int32)
        for name, values in ITEM_ATTRIBUTES.items()
    }
    character = (
        _normal(rng, num_categories, DIM)[category]
        + 0.6 * _normal(rng, num_creators, DIM)[creator]
        + 0.3 * _normal(rng, count, DIM)
    ) / np.float32(np.sqrt(1 + 0.6**2 + 0.3**2))
    appeal = (
        _normal(rng, count)
        + _normal(rng, num_creators)[creator]
        + _normal(rng, num_categories)[category]
        + sum(_normal(rng, values)[attributes[name]] for name, values in ITEM_ATTRIBUTES.items())
    )
    popularity = 1 / (rng.permutation(count) + 10.0) ** config.items.zipf
    order = np.argsort(category, kind="stable").astype(np.int32)
    items = Items(
        category=category,
        creator=creator,
        attributes=attributes,
        duration_s=np.exp(rng.normal(np.log(40), 0.8, size=count)).astype(np.float32),
        character=character,
        appeal=appeal.astype(np.float32),
        signs={
            part: np.stack(
                [
                    sign[part, place, item][attributes[item]]
                    for place, (*_, item) in enumerate(crosses)
                ],
                axis=1,
            )
            for part, crosses in CROSSES.items()
        },
        log_popularity=np.log(popularity).astype(np.float32),
        order=order,
        cumulative=np.concatenate(([0.0], np.cumsum(popularity[order]))),
        first_of_category=np.searchsorted(category[order], np.arange(num_categories + 1)),
    )
    return items, category_share


def _balanced_signs(count: int, rng: Generator) -> Float32:
    """Give +1 to half of the values and -1 to the others; an odd one out has 0."""
    half = count // 2
    signs = np.concatenate((np.ones(half), -np.ones(half), np.zeros(count - 2 * half)))
    return rng.permutation(signs).astype(np.float32)


def _normal(rng: Generator, *shape: int) -> Float32:
    return rng.standard_normal(shape, dtype=np.float32)
