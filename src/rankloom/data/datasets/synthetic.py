"""Generated ratings with a known signal, in the form of MovieLens.

A user likes an item (rating 4 or 5) with probability sigmoid(s), where

    s = b_user + c_item + 1.6 <t_user, q_item> + 1.0 <r, q_item>

t_user is the user's taste and q_item the item's character, both over the genres; r is the user's
recent mood: the sum of +q (liked) and -q (not liked) over the events of earlier requests, weighing
half as much with each later event. A linear model on one-hot ids sees b and c only. The rating adds
logistic noise to s and cuts at fixed thresholds, so that "rating = 5" follows the same signal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.rating_log import Int64, RatingLog, Split, write_rating_log
from rankloom.errors import ConfigError

Float64 = npt.NDArray[np.float64]

_GENRES = (
    "action", "adventure", "animation", "comedy", "crime", "documentary",
    "drama", "fantasy", "horror", "musical", "romance", "western",
)  # fmt: skip
_OCCUPATIONS = ("artist", "doctor", "engineer", "farmer", "lawyer", "student", "teacher", "writer")
_TASTE_SCALE = 1.6
_MOOD_SCALE = 1.0
_MOOD_DECAY = 0.5
# Rating r + 1 begins above the r-th threshold; "like" (4 and 5) begins at 0.
_THRESHOLDS = np.array([-2.4, -1.2, 0.0, 1.3])
_FIRST_SECOND = 1_600_000_000
_MEAN_REQUEST_ROWS = 2.5
_DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class PlantedRows:
    """A generated log and the truth behind it."""

    log: RatingLog
    """The ratings, user by user and in order of time within each."""
    probability: Float64
    """(V,) probability that the rating is 4 or 5, given the user's earlier requests."""


def prepare_synthetic(
    destination: Path,
    *,
    num_rows: int = 50_000,
    num_users: int = 500,
    num_items: int = 400,
    seed: int = 0,
    split: Split = "user_time",
    max_history: int = 200,
    report: Callable[[str], None],
) -> PreparedDataset:
    """Generate ratings and write train, valid and test rows with MovieLens' columns.

    Args:
        destination: Folder to write to.
        num_rows: Ratings in all splits together.
        num_users: Users; each has about `num_rows / num_users` ratings, some many more.
        num_items: Items; popular ones are rated more often.
        seed: The same seed gives the same files.
        split: Cut each user's requests by time, or all requests.
        max_history: The newest events of a history that are kept.
        report: Called with each line of progress.

    Raises:
        ConfigError: A size is not positive, or an option is unknown.
        DataError: The folder cannot be written to.
    """
    planted = planted_rows(num_rows=num_rows, num_users=num_users, num_items=num_items, seed=seed)
    report(f"synthetic: {num_rows:,} ratings of {num_items:,} items by {num_users:,} users")
    return write_rating_log(
        planted.log,
        destination,
        name="synthetic",
        split=split,
        max_history=max_history,
        report=report,
    )


def planted_rows(*, num_rows: int, num_users: int, num_items: int, seed: int) -> PlantedRows:
    """Draw ratings from the signal that this file's head describes.

    Args:
        num_rows: V, the number of ratings.
        num_users: Users.
        num_items: Items.
        seed: Of all random draws.

    Raises:
        ConfigError: A size is not positive.
    """
    sizes = {"num_rows": num_rows, "num_users": num_users, "num_items": num_items}
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"data.{name}: must be positive. Got {size}. Give 1 or more.")
    generator = np.random.default_rng(seed)
    items, character = _draw_items(num_items, generator)
    users, taste = _draw_users(num_users, generator)
    user, item, is_new_request, timestamp = _draw_impressions(
        num_rows, num_users, num_items, generator
    )
    steady = (
        generator.normal(0.1, 0.6, num_users)[user]
        + generator.normal(0.0, 0.6, num_items)[item]
        + _TASTE_SCALE * np.einsum("vg,vg->v", taste[user], character[item])
    )
    noise = generator.logistic(size=num_rows)
    logit = _add_mood(steady, noise, user, character[item], is_new_request)
    log = RatingLog(
        users=users,
        items=items,
        user=user,
        item=item,
        rating=np.searchsorted(_THRESHOLDS, logit + noise) + 1,
        timestamp=timestamp,
    )
    return PlantedRows(log=log, probability=1 / (1 + np.exp(-logit)))


def _draw_items(num_items: int, generator: np.random.Generator) -> tuple[pa.Table, Float64]:
    """Draw the items' table and their characters q (num_items, genres) of about unit length."""
    num_genres = len(_GENRES)
    order = generator.random((num_items, num_genres)).argsort(axis=1).argsort(axis=1)
    has_genre = order < generator.integers(1, 4, (num_items, 1))
    # The part that no genre tells is learned from the item's id alone.
    character = has_genre / np.sqrt(has_genre.sum(axis=1, keepdims=True))
    character = character + generator.normal(0, 0.15, character.shape)
    genres = [[_GENRES[place] for place in np.flatnonzero(row)] for row in has_genre]
    table = pa.table(
        {
            "item_id": [f"item_{number}" for number in range(num_items)],
            "release_year": generator.integers(1950, 2020, num_items),
            "genres": pa.array(genres, pa.list_(pa.string())),
        }
    )
    return table, character


def _draw_users(num_users: int, generator: np.random.Generator) -> tuple[pa.Table, Float64]:
    """Draw the users' table and their tastes t (num_users, genres), centred over the genres."""
    occupation = generator.integers(0, len(_OCCUPATIONS), num_users)
    of_occupation = generator.normal(0, 1.0, (len(_OCCUPATIONS), len(_GENRES)))
    taste = of_occupation[occupation] + generator.normal(0, 0.7, (num_users, len(_GENRES)))
    # Without a mean over genres the taste cannot pass for a user bias.
    taste -= taste.mean(axis=1, keepdims=True)
    table = pa.table(
        {
            "user_id": [f"user_{number}" for number in range(num_users)],
            "age": generator.integers(15, 75, num_users).astype(np.float64),
            "gender": np.array(["F", "M"])[generator.integers(0, 2, num_users)],
            "occupation": np.array(_OCCUPATIONS)[occupation],
            "zip_code": [f"{code:05d}" for code in generator.integers(0, 100_000, num_users)],
        }
    )
    return table, taste


def _draw_impressions(
    num_rows: int, num_users: int, num_items: int, generator: np.random.Generator
) -> tuple[Int64, Int64, npt.NDArray[np.bool_], Int64]:
    """Draw who sees what when: user (sorted), item, whether a request begins, and the second."""
    activity = generator.lognormal(0, 0.5, num_users)
    rows_of_user = generator.multinomial(num_rows, activity / activity.sum())
    user = np.repeat(np.arange(num_users), rows_of_user)
    popularity = 1 / np.arange(5, num_items + 5) ** 0.7
    item = generator.permutation(num_items)[
        generator.choice(num_items, num_rows, p=popularity / popularity.sum())
    ]
    is_first_of_user = np.diff(user, prepend=-1) != 0
    is_new_request = generator.random(num_rows) < 1 / _MEAN_REQUEST_ROWS
    is_new_request |= is_first_of_user
    gap = np.where(is_new_request, 60 + generator.exponential(_DAY_S / 2, num_rows), 0)
    gap[is_first_of_user] = generator.uniform(0, 100 * _DAY_S, is_first_of_user.sum())
    elapsed = np.cumsum(gap.astype(np.int64))
    before_user = (elapsed - gap.astype(np.int64))[is_first_of_user]
    elapsed -= np.repeat(before_user, rows_of_user[rows_of_user > 0])
    return user, item, is_new_request, _FIRST_SECOND + elapsed


def _add_mood(
    steady: Float64,
    noise: Float64,
    user: Int64,
    character: Float64,
    is_new_request: npt.NDArray[np.bool_],
) -> Float64:
    """Add the effect of recent likes to each rating's logit.

    The mood depends on what was liked, so events are drawn one after the other; the loop runs over
    the place in the user's history, for all users at once.

    Args:
        steady: (V,) logit without the mood.
        noise: (V,) logistic noise; the user likes the item when logit + noise > 0.
        user: (V,) sorted.
        character: (V, genres) of each rating's item.
        is_new_request: (V,) whether the rating is the first one of its request.
    """
    logit = steady.copy()
    starts = np.flatnonzero(np.diff(user, prepend=-1) != 0)
    lengths = np.diff(starts, append=len(user))
    visible = np.zeros((len(starts), character.shape[1]))
    newest = visible.copy()
    for place in range(lengths.max()):
        going = np.flatnonzero(lengths > place)
        row = starts[going] + place
        # A request sees the mood as it was when the request came.
        seen = np.where(is_new_request[row, None], newest[going], visible[going])
        visible[going] = seen
        logit[row] += _MOOD_SCALE * np.einsum("vg,vg->v", seen, character[row])
        sign = np.where(logit[row] + noise[row] > 0, 1.0, -1.0)
        newest[going] = _MOOD_DECAY * newest[going] + sign[:, None] * character[row]
    return logit
