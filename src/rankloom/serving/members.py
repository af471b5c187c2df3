"""What a body may ask for, checked once for all formats; needs no torch.

A body is {"user": {column: value}, "candidates": {column: N values}} with the optional members
`context`, `deadline_ms`, `top_k` and `id`, or {"requests": [such, ...]}. Candidates may also be N
mappings. Null in an optional member is as if it were not there.

What columns a model reads and which values it allows is not known here: the decoder checks that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from rankloom.data.plain_lists import Ragged, is_list, shown
from rankloom.errors import RequestError, did_you_mean, join_problems
from rankloom.serving.request import RankRequest

if TYPE_CHECKING:
    # The client, which imports this file, needs no configs.
    from rankloom.serving.limits import Limits

MEMBERS = ("user", "candidates", "context", "deadline_ms", "top_k", "id")
MAX_DEADLINE_MS = 86_400_000
"""A day: whoever can wait longer needs no deadline."""
MAX_ID_LENGTH = 128
_MAX_PROBLEMS = 20
_MAX_SHOWN = 5
_SHORT = 64


def requests_of(body: object, limits: Limits) -> list[RankRequest]:
    """Give the requests of a decoded body.

    Args:
        body: Plain values, as a parser of JSON or msgpack gives them. NumPy arrays, `Texts` and
            `Ragged` may stand for lists.
        limits: On what one body may hold.

    Raises:
        RequestError: A member is missing, unknown, of another type or beyond a limit; all such at
            once.
    """
    _check_nesting(body, limits.depth)
    if not isinstance(body, dict) or "requests" not in body:
        problems: list[str] = []
        requests = [_Reader("", limits, problems).read(body)]
    else:
        requests, problems = _several(body, limits)
    refuse(problems)
    return requests


def refuse(problems: list[str]) -> None:
    """Raise all problems as one error.

    Raises:
        RequestError: There is a problem.
    """
    if not problems:
        return
    shown_ones = problems[:_MAX_PROBLEMS]
    if problems[_MAX_PROBLEMS:]:
        shown_ones.append(f"and {len(problems) - _MAX_PROBLEMS} more.")
    raise RequestError(join_problems(shown_ones, where="request" if problems[1:] else ""))


def _several(body: dict[str, Any], limits: Limits) -> tuple[list[RankRequest], list[str]]:
    given, problems = body["requests"], _unknown("", body, ("requests",))
    if not isinstance(given, list) or not 0 < len(given) <= limits.requests:
        got = len(given) if isinstance(given, list) else shown(given)
        problems.append(
            f"requests: must be a list of 1 to {limits.requests} requests. Got {got}. "
            "Give one for each user, and the rest in another body."
        )
        return [], problems
    found = [
        _Reader(f"requests[{number}].", limits, problems).read(one)
        for number, one in enumerate(given)
    ]
    return found, problems


@dataclass(frozen=True)
class _Reader:
    """Reads one request.

    A wrong value is replaced by one that is right, so that all problems are found.
    """

    prefix: str
    """Before the members' names."""
    limits: Limits
    problems: list[str]
    """What was wrong; grows."""

    def read(self, given: object) -> RankRequest:
        """Give the request, which means something only if there are no new problems."""
        if not isinstance(given, dict):
            self._add("", f"must be a mapping. Got {shown(given)}. Give user and candidates.")
            return RankRequest(user={}, candidates={})
        self.problems.extend(_unknown(self.prefix, given, MEMBERS))
        lacking = [name for name in ("user", "candidates") if name not in given]
        for name in lacking:
            self._add(name, f"is missing. Got {_names(given)}. Give a mapping of columns.")
        request = RankRequest(
            user=self._columns("user", given.get("user", {})),
            candidates=given.get("candidates", {}),
            context=self._columns("context", _or(given.get("context"), {})),
            deadline_ms=self._deadline(given.get("deadline_ms")),
            top_k=self._top_k(given.get("top_k")),
            id=self._id(_or(given.get("id"), "")),
        )
        if "candidates" not in lacking:
            self._check_candidates(given["candidates"])
        return request

    def _add(self, name: str, problem: str) -> None:
        where = f"{self.prefix}{name}".removesuffix(".") or "body"
        self.problems.append(f"{where}: {problem}")

    def _columns(self, name: str, given: object) -> dict[str, Any]:
        if not isinstance(given, dict):
            self._add(
                name, f"must be a mapping of columns to values. Got {shown(given)}. Give one."
            )
            return {}
        for column, value in given.items():
            if is_list(value) and (count := _count(value)) > self.limits.events:
                self._add(
                    f"{name}.{_brief(column)}",
                    f"must have at most {self.limits.events} values. Got {count}. "
                    "Give the newest ones.",
                )
        return given

    def _deadline(self, given: object) -> float | None:
        if given is None:
            return None
        # NaN is within no limits. Whole numbers may be too large for a float: compared first.
        if type(given) in {int, float} and 0 < given <= MAX_DEADLINE_MS:  # type: ignore[operator]
            return float(given)  # type: ignore[arg-type]
        self._add(
            "deadline_ms",
            f"must be a number above 0, at most {MAX_DEADLINE_MS}. Got {shown(given)}. "
            "Give the milliseconds that are left.",
        )
        return None

    def _top_k(self, given: object) -> int | None:
        if given is None:
            return None
        if type(given) is int and given >= 1:
            # More than there can be candidates: all of them.
            return min(given, self.limits.candidates)
        self._add(
            "top_k",
            f"must be a whole number from 1 on. Got {shown(given)}. Leave it out to order all.",
        )
        return None

    def _id(self, given: object) -> str:
        if type(given) is str and len(given) <= MAX_ID_LENGTH and given.isprintable():
            return given
        self._add(
            "id",
            f"must be a text of at most {MAX_ID_LENGTH} printable characters. Got {shown(given)}. "
            "Shorten it, or leave it out.",
        )
        return ""

    def _check_candidates(self, given: object) -> None:
        if isinstance(given, dict):
            self._check_lists(given)
            return
        if not isinstance(given, list) or set(map(type, given)) - {dict}:
            self._add(
                "candidates",
                f"must be a mapping of columns to lists, or a list of mappings. Got {shown(given)}."
                ' Give one, such as {"item": [3, 5]}.',
            )
            return
        self._check_count(len(given))

    def _check_lists(self, given: dict[str, Any]) -> None:
        counts: dict[int, str] = {}
        no_lists = []
        for name, values in given.items():
            if is_list(values):
                counts.setdefault(len(values), name)
            else:
                no_lists.append(name)
        for name in no_lists[:_MAX_SHOWN]:
            self._add(
                f"candidates.{_brief(name)}",
                f"must be a list of one value for each candidate. Got {shown(given[name])}. "
                "Give a list.",
            )
        if len(counts) > 1:
            first = list(counts.items())[:_MAX_SHOWN]
            got = ", ".join(f"{_brief(name)}: {count}" for count, name in first)
            self._add(
                "candidates",
                f"all columns must have one length. Got {got}. Give one value for each candidate.",
            )
        elif not no_lists:
            self._check_count(next(iter(counts), 0))

    def _check_count(self, count: int) -> None:
        if not 0 < count <= self.limits.candidates:
            self._add(
                "candidates",
                f"their number must be 1 to {self.limits.candidates}. Got {count}. "
                "Give at least one, or ask several times.",
            )


def _check_nesting(body: object, depth: int) -> None:
    """Check that lists and mappings are not too deep inside each other, and that keys are texts.

    Raises:
        RequestError: They are.
    """
    level = _holders([body])
    for _ in range(depth):
        if not level:
            return
        keys = set(map(type, chain.from_iterable(one for one in level if type(one) is dict)))
        if keys - {str}:
            got = ", ".join(sorted(key.__name__ for key in keys - {str}))
            raise RequestError(
                f"body: names of members and columns must be texts. Got {got}. Cast them."
            )
        # A list may hold arrays, and their sum may overflow.
        with np.errstate(all="ignore"):
            level = _inner(level)
    if level:
        raise RequestError(
            f"body: lists and mappings are more than {depth} deep. Got more. Flatten it."
        )


def _inner(level: list[Any]) -> list[Any]:
    """Give the lists and mappings that stand directly in some."""
    # Short ones are looked at together: there may be some for each candidate.
    short = [one.values() if type(one) is dict else one for one in level if len(one) < _SHORT]
    found = []
    if not {dict, list}.isdisjoint(map(type, chain.from_iterable(short))):
        found = [one for one in chain.from_iterable(short) if type(one) in {dict, list}]
    return found + [inner for one in level if len(one) >= _SHORT for inner in _holders(one)]


def _holders(given: Any) -> list[Any]:
    """Give the lists and mappings that stand directly in one."""
    if type(given) is dict:
        given = given.values()
    elif _has_numbers_only(given) or {dict, list}.isdisjoint(map(type, given)):
        return []
    return [one for one in given if type(one) in {dict, list}]


def _has_numbers_only(values: list[Any]) -> bool:
    """Tell whether these are certainly numbers, three times as fast as by their types."""
    try:
        # With arrays among them it is an array, or an error where their shapes differ.
        return type(sum(values, 0.0)) is float
    except (TypeError, ValueError, OverflowError):
        return False


def _unknown(prefix: str, given: dict[str, Any], known: tuple[str, ...]) -> list[str]:
    return [
        f"{prefix}{_brief(name)}: is no member. Got {_brief(name)!r}."
        f"{did_you_mean(_brief(name), known)} Known: {', '.join(known)}."
        for name in [one for one in given if one not in known][:_MAX_SHOWN]
    ]


def _count(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.size
    return len(value.values) if isinstance(value, Ragged) else len(value)


def _names(given: dict[str, Any]) -> str:
    return ", ".join(_brief(name) for name in list(given)[:_MAX_SHOWN]) or "nothing"


def _brief(name: str) -> str:
    """Shorten a name: a client may send one of megabytes."""
    return name if len(name) <= 64 else f"{name[:61]}..."


def _or(given: object, default: object) -> Any:
    return default if given is None else given
