"""Features at the door: a request with ids becomes one with columns.

    door = FeatureDoor.open(config, schema, indexes)
    request = await door.fill(request)

What a client sends wins over the store, column by column; of a history it sends all columns or
none. What the store does not know is null, for which the features declare what stands.

Shapes: N candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from rankloom.data.key_index import KeyIndex
from rankloom.data.plain_lists import as_list, is_list, shown
from rankloom.errors import ConfigError, RequestError
from rankloom.schema import Schema
from rankloom.serving.request import RankRequest
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.fillable import fillable
from rankloom.serving.store.item_check import check_fit
from rankloom.serving.store.items import ItemFeatures, ItemStore
from rankloom.serving.store.user_values import FoundUser, UserValues
from rankloom.serving.store.users import RedisUsers, UnreachableError, UserFeatures

_INT64 = range(-(2**63), 2**63)


@dataclass
class DoorCounts:
    """What happened so far."""

    items_found: int = 0
    """Candidates that were looked up and known."""
    items_missing: int = 0
    """Candidates that were looked up and not known."""
    users_found: int = 0
    """Users that were looked up and known."""
    users_missing: int = 0
    """Users that were looked up and not known, or without an id."""
    users_unreachable: int = 0
    """Users for whom Redis did not answer in time."""
    users_not_asked: int = 0
    """Users who were not looked up, as Redis was left alone."""
    values_damaged: int = 0
    """Values and histories in Redis that were not what they should be."""


class FeatureDoor:
    """Fills in what a request does not bring.

    Args:
        schema: Of the artifact.
        config: What stands for what is missing.
        items: Looks up items, or none.
        users: Looks up users, or none.

    Raises:
        ConfigError: Users are looked up, and the schema says not by which id.
    """

    def __init__(
        self,
        schema: Schema,
        config: StoreConfig,
        *,
        items: ItemFeatures | None = None,
        users: UserFeatures | None = None,
    ) -> None:
        if users is not None and schema.roles.user is None:
            raise ConfigError(
                "redis: users are looked up by roles.user, which the artifact does not state. "
                "State it in the run file and train again, or leave redis out."
            )
        self._config, self._items, self._users = config, items, users
        self._of_items, self._of_users = fillable(schema, "item"), fillable(schema, "user")
        self._first_events = {
            one.first_event for one in schema.sequences.values() if one.side == "user"
        }
        self._user = schema.roles.user or ""
        self.counts = DoorCounts()
        """What happened so far."""

    @classmethod
    def open(
        cls,
        config: StoreConfig,
        schema: Schema,
        indexes: Mapping[str, KeyIndex],
        *,
        check_digests: bool = True,
    ) -> Self:
        """Open what a config names; Redis need not answer yet.

        Args:
            config: Where features are looked up.
            schema: Of the artifact.
            indexes: Table -> index of its vocabulary's keys.
            check_digests: Whether the items' files are read to be sure that they are whole.

        Raises:
            ArtifactError: The items' folder is missing or damaged.
            ConfigError: The schema does not say by which id users are looked up.
            SchemaError: The items do not have the types that the artifact reads.
        """
        items = None
        if config.items is not None:
            items = ItemStore(config.items, check_digests=check_digests)
            check_fit(items, schema)
        users = RedisUsers(config, UserValues(schema, indexes)) if config.redis else None
        return cls(schema, config, items=items, users=users)

    def filled(self) -> list[str]:
        """List what clients need not send, such as `user/age` and `candidates/price`."""
        users = self._of_users.columns if self._users is not None else ()
        held = () if self._items is None else self._items.columns
        return [f"user/{one}" for one in users] + [
            f"candidates/{one}" for one in self._of_items.columns if one in held
        ]

    @property
    def is_open(self) -> bool:
        """Tell whether Redis is left alone at the moment."""
        return self._users is not None and self._users.is_open

    async def close(self) -> None:
        """Let go of all connections."""
        if self._users is not None:
            await self._users.close()

    async def fill(self, request: RankRequest) -> RankRequest:
        """Give a request with the columns that it lacks and the store has.

        Raises:
            OverloadedError: Redis does not answer, and that is to be refused.
            RequestError: An id is of a wrong type; a user or candidate is not known, and that is to
                be refused or a feature declares nothing for it.
        """
        candidates = self._filled_candidates(request.candidates)
        user = await self._filled_user(request)
        if candidates is request.candidates and user is request.user:
            return request
        return replace(request, user=user, candidates=candidates)

    def _filled_candidates(self, given: Any) -> Any:
        if self._items is None:
            return given
        if isinstance(given, Mapping):
            wanted = self._of_items.wanted(self._items.columns, given)
            if not wanted or self._items.item not in given:
                return given
            return {**given, **self._item_columns(given[self._items.item], wanted)}
        return self._filled_mappings(given)

    def _filled_mappings(self, given: Sequence[Mapping[str, Any]]) -> Any:
        """Fill candidates that are given one by one, each with what it lacks."""
        assert self._items is not None
        if not isinstance(given, list | tuple) or not all(isinstance(o, Mapping) for o in given):
            # The decoder says what is wrong with it.
            return given
        item, held = self._items.item, self._items.columns
        # By what they bring: most often all candidates bring the same.
        wanted_by = {names: self._of_items.wanted(held, names) for names in set(map(tuple, given))}
        if len(wanted_by) == 1:
            names = next(iter(wanted_by))
            if not wanted_by[names] or item not in names:
                return given
            return self._filled_candidates({name: [one[name] for one in given] for name in names})
        wanted_of = [wanted_by[tuple(one)] for one in given]
        lacking = [at for at, wanted in enumerate(wanted_of) if wanted and item in given[at]]
        if not lacking:
            return given
        needed = list(dict.fromkeys(name for at in lacking for name in wanted_of[at]))
        found = self._item_columns([given[at][item] for at in lacking], needed)
        columns = {name: as_list(values) for name, values in found.items()}
        filled: list[Mapping[str, Any]] = list(given)
        for row, at in enumerate(lacking):
            filled[at] = {**given[at], **{name: columns[name][row] for name in wanted_of[at]}}
        return filled

    def _item_columns(self, ids: Any, wanted: Sequence[str]) -> dict[str, Any]:
        """Look up candidates.

        Raises:
            RequestError: Ids are of a wrong type, or candidates are not known and nothing stands
                for them.
        """
        assert self._items is not None
        if not is_list(ids):
            raise RequestError(
                f"candidates: column {self._items.item!r} must be a list of one id for each "
                f"candidate. Got {shown(ids)}. Give a list."
            )
        found = self._items.look_up(ids, wanted)
        if found.is_missing is not None:
            missing = np.flatnonzero(found.is_missing)
            self.counts.items_missing += len(missing)
            first = int(missing[0])
            others = f", nor are {len(missing) - 1} more" if len(missing) > 1 else ""
            what = f"candidates: the store does not know item {shown(ids[first])}{others}"
            _refuse_nulls(what, wanted, self._of_items.without_default)
            if self._config.missing_item == "refuse":
                raise RequestError(f"{what}. Send its columns, or write it to the store.")
            self.counts.items_found -= len(missing)
        self.counts.items_found += len(ids)
        return found.columns

    async def _filled_user(self, request: RankRequest) -> Any:
        given = request.user
        if self._users is None or not isinstance(given, Mapping):
            return given
        wanted = self._of_users.wanted(self._of_users.columns, given)
        place = given if self._user in given else request.context
        if not wanted or self._user not in place:
            return given
        user = self._checked_user(place[self._user])
        missing = {name: 0 if name in self._first_events else None for name in wanted}
        without = self._of_users.without_default
        try:
            found = await self._look_up(user, wanted, request.deadline_ms)
        except UnreachableError:
            if self._config.unreachable == "refuse" or not without.keys().isdisjoint(wanted):
                raise
            return {**missing, **given}
        if found is None:
            what = f"user: the store does not know user {shown(user)}"
            _refuse_nulls(what, wanted, without)
            if self._config.missing_user == "refuse":
                raise RequestError(f"{what}. Send its columns, or write it to the store.")
            return {**missing, **given}
        unknown = [name for name in wanted if found.values.get(name) is None]
        what = f"user: the store knows too little of user {shown(user)}"
        _refuse_nulls(what, unknown, without)
        return {**found.values, **given}

    def _checked_user(self, user: Any) -> int | str | None:
        """Give a user's id.

        Raises:
            RequestError: It is none.
        """
        user = user.item() if isinstance(user, np.integer) else user
        if user is None or isinstance(user, str) or (type(user) is int and user in _INT64):
            return user
        raise RequestError(
            f"user: column {self._user!r} must be a whole number of 64 bits or a text. Got "
            f"{shown(user)}. Give the user's id, or none."
        )

    async def _look_up(
        self, user: int | str | None, wanted: Sequence[str], deadline_ms: float | None
    ) -> FoundUser | None:
        """Look up a user; give none where nothing is known.

        Raises:
            UnreachableError: There was no answer in time.
        """
        assert self._users is not None
        share = self._config.deadline_share
        timeout_s = math.inf if deadline_ms is None else max(deadline_ms, 0.0) * share / 1000
        was_open = self._users.is_open
        found = None
        try:
            if user is not None:
                found = await self._users.get(user, wanted, timeout_s=timeout_s)
        except UnreachableError:
            if was_open:
                self.counts.users_not_asked += 1
            else:
                self.counts.users_unreachable += 1
            raise
        if found is None:
            self.counts.users_missing += 1
        else:
            self.counts.users_found += 1
            self.counts.values_damaged += found.num_damaged
        return found


def _refuse_nulls(what: str, nulls: Sequence[str], without_default: Mapping[str, str]) -> None:
    """Check that something stands for null in these columns.

    Raises:
        RequestError: A feature declares nothing.
    """
    needed = [name for name in nulls if name in without_default]
    if needed:
        features = ", ".join(dict.fromkeys(repr(without_default[name]) for name in needed))
        raise RequestError(
            f"{what}, and features declare nothing for null: {features}. Send the columns "
            f"{', '.join(needed)}."
        )
