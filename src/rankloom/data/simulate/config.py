"""What a simulated log is made of: sizes, dynamics, and how strong each part of its signal is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from rankloom.config import Config, load_config
from rankloom.config.problems import problem

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]


class RowsConfig(Config):
    """About how many rows each split has; the splits follow each other in time."""

    train: PositiveInt = 1_000_000
    """Rows of the first days."""
    valid: PositiveInt = 100_000
    """Rows of the days after."""
    test: PositiveInt = 200_000
    """Rows of the last days."""

    @property
    def total(self) -> int:
        """Rows of all splits."""
        return self.train + self.valid + self.test


class UsersConfig(Config):
    """Who asks."""

    count: PositiveInt = 10_000
    """Users; some ask far more often than others."""
    interests: PositiveInt = 4
    """Categories that a user follows at one time, each with its weight."""
    drift: NonNegativeFloat = 0.3
    """How far an interest's log weight wanders in a day."""
    turnover: NonNegativeFloat = 0.05
    """Interests that a user exchanges for another in a day, on average."""


class ItemsConfig(Config):
    """What is shown."""

    count: PositiveInt = 50_000
    """Items; each has one category and one creator."""
    categories: Annotated[int, Field(ge=2)] = 60
    """Categories, some much larger than others."""
    creators: PositiveInt = 3_000
    """Creators; most of a creator's items share a category."""
    zipf: NonNegativeFloat = 1.0
    """Popularity of the r-th item is proportional to 1 / (r + 10) ** zipf."""


class RequestsConfig(Config):
    """How users ask and what they are shown."""

    days: PositiveFloat = 30.0
    """Time that the log covers."""
    candidates: Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=2)] = (10, 50)
    """Least and most candidates of a request."""
    scenarios: PositiveInt = 4
    """Surfaces, each with its own taste."""
    by_interest: Share = 0.6
    """Share of the candidates that are drawn from the user's interests; the others by popularity
    alone."""
    order: Literal["random", "popularity"] = "random"
    """Order in which candidates are shown. random: the place says nothing of the candidate, so
    that the ceiling of a model without the position is known too. popularity: as in most logs, the
    popular stand in front."""

    @model_validator(mode="after")
    def _least_first(self) -> RequestsConfig:
        least, most = self.candidates
        if least > most:
            raise problem(f"candidates: the least must come first. Got {least}, {most}. Swap them.")
        return self


class HistoryConfig(Config):
    """What a user has clicked."""

    length: PositiveInt = 200
    """Newest events that a request carries."""
    near: PositiveInt = 20
    """Newest events that are the near past; all the others are the far past."""
    initial: NonNegativeInt = 150
    """Events that a user has on average when the log begins."""


class SignalConfig(Config):
    """Deviation of each part of the logit of a click; 0 leaves a part out."""

    main: NonNegativeFloat = 0.6
    """Effects of single values (item, creator, user, hour): what logistic regression sees."""
    taste: NonNegativeFloat = 0.5
    """The user's attributes against the item's character."""
    pairs: NonNegativeFloat = 0.45
    """Products of two signs, of a user's or a moment's attribute and of an item's: neither of the
    two says anything of the click by itself."""
    triples: NonNegativeFloat = 0.45
    """Products of three signs, of a user's, a moment's and an item's attribute: none of the three,
    nor any two of them, says anything of the click."""
    near_past: NonNegativeFloat = 0.6
    """The item's character against those of the near past."""
    far_past: NonNegativeFloat = 0.6
    """How often the item's category stands in the far past."""
    scenario: NonNegativeFloat = 0.5
    """The scenario's own taste, which turns the user's."""
    position: NonNegativeFloat = 0.4
    """The place in the list."""


class RatesConfig(Config):
    """How often things happen."""

    click: Rate = 0.2
    """Clicks of all rows."""
    like: Rate = 0.15
    """Likes of all clicks."""
    buy: Rate = 0.05
    """Purchases of all clicks."""


class SimulationConfig(Config):
    """A simulated log; every value has a default."""

    seed: Annotated[int, Field(ge=0)] = 0
    """The same values and seed give the same files."""
    layout: Literal["flat", "grouped"] = "grouped"
    """flat: one line a row. grouped: one line a request, its candidates' columns as lists."""
    parts: bool = False
    """Write each part of the logit as a column too (`oracle_part_*`)."""
    rows: RowsConfig = RowsConfig()
    """Sizes of the splits."""
    users: UsersConfig = UsersConfig()
    """Who asks."""
    items: ItemsConfig = ItemsConfig()
    """What is shown."""
    requests: RequestsConfig = RequestsConfig()
    """How users ask."""
    history: HistoryConfig = HistoryConfig()
    """What they have clicked."""
    signal: SignalConfig = SignalConfig()
    """Strength of each part of the signal."""
    rates: RatesConfig = RatesConfig()
    """How often things happen."""

    @model_validator(mode="after")
    def _fits(self) -> SimulationConfig:
        most = self.requests.candidates[1]
        if self.history.length < self.history.near + most:
            raise problem(
                "history.length: must hold the near past and the clicks of one request, "
                f"{self.history.near} + {most}. Got {self.history.length}. Raise it."
            )
        if most > self.items.count // 2:
            raise problem(
                f"items.count: must be at least twice the most candidates, {2 * most}. "
                f"Got {self.items.count}. Raise it."
            )
        if self.users.interests > self.items.categories:
            raise problem(
                f"users.interests: must be at most items.categories={self.items.categories}. "
                f"Got {self.users.interests}. Lower it."
            )
        return self


def load_simulation(
    source: Path | None = None, overrides: Mapping[str, Any] | Iterable[str] = ()
) -> SimulationConfig:
    """Read and check what a log shall be made of.

    Args:
        source: A YAML file; without one, all defaults.
        overrides: `{"rows.train": 10_000}`, or texts `rows.train=10000`.

    Raises:
        ConfigError: With every mistake at once.
    """
    return load_config(SimulationConfig, source, overrides, where="simulation")
