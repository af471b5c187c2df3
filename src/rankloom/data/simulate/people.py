"""A block of users: who they are, what interests them now, and what they have clicked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankloom.data.simulate.config import SimulationConfig
from rankloom.data.simulate.world import USER_ATTRIBUTES, Generator, Int32, World

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

DAY_S = 86_400
_WARM_UP_PHASES = 5
_WARM_UP_DAYS = 200.0


@dataclass(frozen=True, kw_only=True)
class Interests:
    """Categories that each user follows, and how much."""

    category: Int32
    """(U, K)."""
    log_weight: Float64
    """(U, K)."""

    def drift(
        self, users: Int64, days: Float64, config: SimulationConfig, world: World, rng: Generator
    ) -> None:
        """Let days pass for some users: weights wander, and some interests are exchanged."""
        shape = (len(users), self.category.shape[1])
        # Mean reversion keeps the spread of the weights near 1 however long the log is.
        kept = np.exp(-(config.users.drift**2) / 2 * days)[:, None]
        noise = np.sqrt(1 - kept**2) * rng.standard_normal(shape)
        self.log_weight[users] = kept * self.log_weight[users] + noise
        is_new = rng.random(shape) < (1 - np.exp(-config.users.turnover * days / shape[1]))[:, None]
        drawn = rng.choice(len(world.category_share), size=shape, p=world.category_share)
        self.category[users] = np.where(is_new, drawn, self.category[users])

    def draw(self, users: Int64, count: int, rng: Generator) -> Int32:
        """Draw (len(users), count) categories by the users' weights."""
        weights = np.exp(self.log_weight[users])
        ends = np.cumsum(weights, axis=1)
        place = rng.random((len(users), count)) * ends[:, -1:]
        chosen = (place[:, :, None] >= ends[:, None, :-1]).sum(2)
        return np.take_along_axis(self.category[users], chosen, axis=1)


class Histories:
    """The newest clicks of each user in rings, and how often each category is in the far past.

    Args:
        num_users: U.
        num_categories: C.
        length: Events kept.
        near: Newest events that are no far past.
    """

    def __init__(self, num_users: int, num_categories: int, *, length: int, near: int) -> None:
        self.length, self.near = length, near
        self.item = np.zeros((num_users, length), np.int32)
        self.time = np.zeros((num_users, length), np.int64)
        self.total = np.zeros(num_users, np.int64)
        """(U,): events ever."""
        self.far_count = np.zeros((num_users, num_categories), np.int32)
        """(U, C): events of each category that are kept and not near."""

    def append(self, user: Int64, rank: Int64, item: Int32, time: Int64, category: Int32) -> None:
        """Add events; each user's stand together, the oldest first, at most `length - near`.

        Args:
            user: (E,).
            rank: (E,): 0 for the first of a user's new events, 1 for the second, ...
            item: (E,).
            time: (E,) seconds.
            category: (I,): of each item.
        """
        number = self.total[user] + rank
        slot = number % self.length
        leaves = number >= self.length
        dropped = category[self.item[user, slot]][leaves]
        np.subtract.at(self.far_count, (user[leaves], dropped), 1)
        self.item[user, slot], self.time[user, slot] = item, time
        ages = number >= self.near
        aged = category[self.item[user, (number - self.near) % self.length]][ages]
        np.add.at(self.far_count, (user[ages], aged), 1)
        np.add.at(self.total, user, 1)

    def newest(self, users: Int64, count: int) -> tuple[Int32, npt.NDArray[np.bool_]]:
        """Give (len(users), count) items, the newest first, and which of them exist."""
        back = np.arange(1, count + 1)
        slot = (self.total[users][:, None] - back) % self.length
        return self.item[users[:, None], slot], back <= self.total[users][:, None]

    def kept(self, users: Int64) -> tuple[dict[str, npt.NDArray[np.generic]], Int64, Int64]:
        """Give all kept events of some users, the oldest first.

        Returns:
            `item` and `time` of the events, one user after the other; the number of each user's
            events; the absolute number of each user's first.
        """
        total = self.total[users]
        count = np.minimum(total, self.length)
        ends = np.cumsum(count)
        owner = np.repeat(np.arange(len(users)), count)
        number = np.arange(len(owner)) - (ends - count)[owner]
        slot = (number + (total - count)[owner]) % self.length
        where = users[owner], slot
        return {"item": self.item[where], "time": self.time[where]}, count, total - count


@dataclass(frozen=True, kw_only=True)
class People:
    """A block of users."""

    first_id: int
    """The block's users have the ids from here on."""
    attributes: dict[str, Int32]
    """Attribute -> (U,)."""
    interests: Interests
    """What they follow now."""
    histories: Histories
    """What they have clicked."""


def meet_people(
    config: SimulationConfig, world: World, *, first_id: int, count: int, start: int, rng: Generator
) -> People:
    """Draw users and the past that they have when the log begins.

    The past has phases, each with other interests, so that its far part says what its near part
    does not.

    Args:
        config: Of the log.
        world: Where items come from.
        first_id: Id of the first.
        count: Users.
        start: Second in which the log begins.
        rng: Source of all that is drawn.
    """
    attributes = {
        name: rng.integers(values, size=count, dtype=np.int32)
        for name, values in USER_ATTRIBUTES.items()
    }
    num_categories, num_interests = config.items.categories, config.users.interests
    interests = Interests(
        category=rng.choice(
            num_categories, size=(count, num_interests), p=world.category_share
        ).astype(np.int32),
        log_weight=rng.standard_normal((count, num_interests)),
    )
    history = config.history
    histories = Histories(count, num_categories, length=history.length, near=history.near)
    people = People(
        first_id=first_id, attributes=attributes, interests=interests, histories=histories
    )
    num_events = np.minimum(
        rng.gamma(1.5, history.initial / 1.5, size=count), history.length
    ).astype(np.int64)
    everybody = np.arange(count)
    piece = history.length - history.near
    for phase in range(_WARM_UP_PHASES):
        left = _WARM_UP_DAYS * (1 - phase / _WARM_UP_PHASES)
        days = np.full(count, _WARM_UP_DAYS / _WARM_UP_PHASES)
        if phase:
            interests.drift(everybody, days, config, world, rng)
        share = num_events * (phase + 1) // _WARM_UP_PHASES - num_events * phase // _WARM_UP_PHASES
        most = int(share.max(initial=0))
        items = world.items.draw(interests.draw(everybody, most, rng), rng)
        is_event = np.arange(most) < share[:, None]
        times = np.sort(np.where(is_event, rng.random((count, most)), 1.0), axis=1)
        times = times * days[:, None] - left
        for first in range(0, most, piece):
            user, rank = np.nonzero(is_event[:, first : first + piece])
            histories.append(
                user,
                rank,
                items[user, first + rank],
                start + (DAY_S * times[user, first + rank]).astype(np.int64) - 1,
                world.items.category,
            )
    return people
