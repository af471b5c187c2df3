"""Simulate a block of users from the first request to the last, all users side by side.

A user's requests follow each other, since clicks enter the history; users do not meet. So the k-th
requests of all users are one step of array operations, whatever their times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from rankloom.data.simulate.config import SimulationConfig
from rankloom.data.simulate.people import DAY_S, Int64, People, meet_people
from rankloom.data.simulate.signal import (
    PARTS,
    WATCH_SHAPE,
    Calibration,
    Parts,
    Requests,
    Truth,
    calibrate,
    raw_parts,
    scale_parts,
    truth_of,
)
from rankloom.data.simulate.world import MOMENT_ATTRIBUTES, Float32, Generator, Int32, World

START = 1_735_689_600
"""Second in which a log begins: 2025-01-01 00:00 UTC, a Wednesday."""
_WEEKDAY_OF_START = 2
# Clicks of a request lie within it, so the next one begins when all of them are over.
_SECONDS_A_PLACE = 5
_HOURLY = np.array(
    [3, 2, 1, 1, 1, 1, 2, 4, 5, 5, 5, 6, 7, 6, 5, 5, 5, 6, 7, 8, 9, 9, 7, 5], np.float64
)
"""How often people ask in each hour of the day."""
_ACTIVITY_SHAPE = 1.2
"""Of the gamma distribution of how often a user asks: the smaller, the more uneven."""
_USERS_TO_CALIBRATE, _STEPS_TO_CALIBRATE = 500, 60
_TRIES = 3
"""Times that a candidate which stands in the list already is drawn anew; then it is left out."""


Values = npt.NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Impressions:
    """Some requests, what was shown in them and what came of it."""

    requests: dict[str, Values]
    """Column -> (R,): `user` (place in the block), `time` (seconds), the moment's attributes,
    `scenario`, `num_shown`, `num_events` and `first_event` (of the history before the request)."""
    events: dict[str, Values]
    """`item` and `time` of all histories, one request after the other, the oldest event first."""
    rows: dict[str, Values]
    """Column -> (V,): `item`, `position`, and what happened: click, like, watch_s, buy."""
    truth: Truth
    """What was true of the rows before."""
    parts: Parts
    """Part of the logit -> (V,)."""


def join(impressions: Sequence[Impressions]) -> Impressions:
    """Put impressions one after the other.

    Args:
        impressions: At least one.
    """
    return Impressions(
        **{
            name: {
                key: np.concatenate([getattr(one, name)[key] for one in impressions])
                for key in getattr(impressions[0], name)
            }
            for name in ("requests", "events", "rows", "truth", "parts")
        }
    )


# Gives the calibration for a step's raw parts, (V,).
Calibrator = Callable[[Parts], Calibration]


def request_times(config: SimulationConfig, count: int, rng: Generator) -> Int64:
    """Draw seconds of the log at which somebody asks, in no order."""
    hours = max(1, round(24 * config.requests.days))
    rate = _HOURLY[np.arange(hours) % 24]
    hour = np.searchsorted(np.cumsum(rate), rng.random(count) * rate.sum(), side="right")
    length_s = DAY_S * config.requests.days / hours
    return START + ((hour + rng.random(count)) * length_s).astype(np.int64)


def num_requests(config: SimulationConfig, count: int, rng: Generator) -> Int64:
    """Draw how often each of `count` users asks."""
    per_request = sum(config.requests.candidates) / 2
    mean = config.rows.total / per_request / config.users.count
    activity = rng.gamma(_ACTIVITY_SHAPE, 1 / _ACTIVITY_SHAPE, size=count)
    return rng.poisson(mean * activity)


def simulate_block(
    config: SimulationConfig,
    world: World,
    calibrator: Calibrator,
    *,
    first_user: int,
    num_users: int,
    rng: Generator,
) -> tuple[People, Iterator[Impressions]]:
    """Give the users, and one step for the first, second, third ... requests of all.

    Args:
        config: Of the log.
        world: Where items come from.
        calibrator: Asked at each step.
        first_user: Id of the first user.
        num_users: Users of the block.
        rng: Source of all that is drawn.
    """
    people = meet_people(config, world, first_id=first_user, count=num_users, start=START, rng=rng)
    times = _times_of_users(config, num_users, rng)

    def steps() -> Iterator[Impressions]:
        before = np.full(num_users, START, np.int64)
        for number in range(times.shape[1]):
            user = np.flatnonzero(times[:, number] >= 0)
            time = times[user, number]
            days = (time - before[user]) / DAY_S
            people.interests.drift(user, days, config, world, rng)
            before[user] = time
            yield _step(config, world, people, user, time, calibrator, rng)

    return people, steps()


def _times_of_users(config: SimulationConfig, num_users: int, rng: Generator) -> Int64:
    """Give (U, most requests) rising seconds, the rest of each row -1."""
    count = num_requests(config, num_users, rng)
    most = int(count.max(initial=0))
    is_there = np.arange(most) < count[:, None]
    times = np.full(is_there.shape, np.iinfo(np.int64).max // 2)
    times[is_there] = request_times(config, int(count.sum()), rng)
    times.sort(axis=1)
    gap = _SECONDS_A_PLACE * (config.requests.candidates[1] + 1) * np.arange(most)
    times = np.maximum.accumulate(times - gap, axis=1) + gap
    return np.where(is_there, times, -1)


def _step(
    config: SimulationConfig,
    world: World,
    people: People,
    user: Int64,
    time: Int64,
    calibrator: Calibrator,
    rng: Generator,
) -> Impressions:
    item, is_shown = _show(config, world, people, user, rng)
    day_s = time - START
    requests = Requests(
        user=user,
        moment={
            "hour": (day_s % DAY_S // 3600).astype(np.int32),
            "weekday": ((day_s // DAY_S + _WEEKDAY_OF_START) % 7).astype(np.int32),
            "network": rng.integers(MOMENT_ATTRIBUTES["network"], size=len(user), dtype=np.int32),
        },
        scenario=rng.integers(config.requests.scenarios, size=len(user), dtype=np.int32),
        item=item,
        is_shown=is_shown,
    )
    raw = {name: part[is_shown] for name, part in raw_parts(world, people, requests).items()}
    calibration = calibrator(raw)
    parts = scale_parts(raw, config.signal, calibration)
    duration_s = world.items.duration_s[item[is_shown]]
    truth = truth_of(parts, duration_s, config.signal, calibration)
    happened = _happen(truth, rng)
    history, num_events, first_event = people.histories.kept(user)
    _remember(world, people, requests, time, happened["click"].astype(bool))
    return Impressions(
        requests={
            "user": user,
            "time": time,
            **requests.moment,
            "scenario": requests.scenario,
            "num_shown": is_shown.sum(axis=1),
            "num_events": num_events,
            "first_event": first_event,
        },
        events=history,
        rows={
            "item": item[is_shown],
            "position": np.nonzero(is_shown)[1].astype(np.int32),
            **happened,
        },
        truth=truth,
        parts=parts,
    )


def _show(
    config: SimulationConfig, world: World, people: People, user: Int64, rng: Generator
) -> tuple[Int32, npt.NDArray[np.bool_]]:
    """Draw each request's candidates, all different, in the order shown.

    Returns:
        (R, N) items, and where there is one.
    """
    least, most = config.requests.candidates
    category = people.interests.draw(user, most, rng)
    by_popularity = rng.random(category.shape) >= config.requests.by_interest
    category = np.where(by_popularity, np.int32(-1), category)
    item = world.items.draw(category, rng)
    for _ in range(_TRIES):
        again = _is_repeated(item)
        item[again] = world.items.draw(category[again], rng)
    wanted = rng.integers(least, most + 1, size=len(user))
    key = rng.gumbel(size=item.shape)
    if config.requests.order == "popularity":
        key -= world.items.log_popularity[item]
    key[_is_repeated(item)] = np.inf
    num_shown = np.minimum(wanted, np.isfinite(key).sum(axis=1))
    item = np.take_along_axis(item, np.argsort(key, axis=1), axis=1)
    return item, np.arange(most) < num_shown[:, None]


def _is_repeated(item: Int32) -> npt.NDArray[np.bool_]:
    """Say where a row holds an item that stands there already."""
    order = np.argsort(item, axis=1, kind="stable")
    in_order = np.take_along_axis(item, order, axis=1)
    repeated = np.zeros(item.shape, bool)
    same = np.diff(in_order, axis=1) == 0
    np.put_along_axis(repeated, order[:, 1:], same, axis=1)
    return repeated


def _happen(truth: Truth, rng: Generator) -> dict[str, Values]:
    """Draw what users do."""
    draws: Float32 = rng.random((3, len(truth["click"])), dtype=np.float32)
    click = draws[0] < truth["click"]
    # A like or a purchase has its probability given the click.
    like = click & (draws[1] * truth["click"] < truth["like"])
    buy = click & (draws[2] * truth["click"] < truth["buy"])
    watch_s = np.zeros(len(click), np.float32)
    mean = (truth["watch_s"] / truth["click"])[click]
    watch_s[click] = mean * rng.gamma(WATCH_SHAPE, 1 / WATCH_SHAPE, size=len(mean))
    return {
        "click": click.astype(np.int8),
        "like": like.astype(np.int8),
        "watch_s": watch_s,
        "buy": buy.astype(np.int8),
    }


def _remember(
    world: World,
    people: People,
    requests: Requests,
    time: Int64,
    is_clicked: npt.NDArray[np.bool_],
) -> None:
    """Enter the clicks, (V,), into the histories."""
    clicked = np.zeros(requests.item.shape, bool)
    clicked[requests.is_shown] = is_clicked
    request, place = np.nonzero(clicked)
    rank = (np.cumsum(clicked, axis=1) - 1)[request, place]
    people.histories.append(
        requests.user[request],
        rank,
        requests.item[request, place],
        time[request] + _SECONDS_A_PLACE * (1 + place) - 1,
        world.items.category,
    )


def calibrate_world(config: SimulationConfig, world: World, rng: Generator) -> Calibration:
    """Find the calibration by simulating some users.

    What is clicked shapes the histories that later clicks follow, so a second simulation runs with
    what the first one finds.
    """
    found: Calibration | None = None
    for _ in range(2):
        seen: list[Parts] = []

        def calibrator(
            raw: Parts, seen: list[Parts] = seen, known: Calibration | None = found
        ) -> Calibration:
            seen.append(raw)
            return known or calibrate(raw, config.signal, config.rates)

        num_users = min(config.users.count, _USERS_TO_CALIBRATE)
        _, steps = simulate_block(
            config, world, calibrator, first_user=0, num_users=num_users, rng=rng
        )
        for _step_done in islice(steps, _STEPS_TO_CALIBRATE):
            pass
        raw = {name: np.concatenate([one[name] for one in seen]) for name in PARTS}
        found = calibrate(raw, config.signal, config.rates)
    assert found is not None
    return found
