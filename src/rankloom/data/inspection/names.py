"""What a column's name says of it."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

Hint = Literal[
    "oracle", "outcome", "label", "rating", "weight", "position", "user", "item", "request",
    "first_event", "time", "scenario", "id", "number", "moment",
]  # fmt: skip

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
HISTORY_WORDS = frozenset(
    {
        "history", "histories", "hist", "past", "recent", "seq", "sequence", "behavior",
        "behaviour", "behaviors", "behaviours", "previous", "prev", "last",
    }
)  # fmt: skip
TIME_WORDS = frozenset(
    {"time", "times", "timestamp", "timestamps", "ts", "date", "datetime", "second", "seconds"}
)

# In this order: the first that matches counts. Words of a name are joined by `_`.
_PATTERNS: tuple[tuple[Hint, str], ...] = (
    ("oracle", r"oracle(_.*)?"),
    (
        "outcome",
        (
            r"(.*_)?(watch(ed)?|play(ed)?|dwell|read|stay|view(ed)?|listen(ed)?|engagement|session)_?"
            r"(time|times|duration|seconds|secs?|s|ms|length|ratio|percent(age)?)(_(s|ms|seconds))?(_.*)?|"
            r"(.*_)?(watchtime|playtime|dwell|dwelltime|completion(_(rate|ratio))?)|"
            r"(.*_)?(conversion|convert|click|purchase|buy|order|pay|install|like|download|cart)_?"
            r"(time|timestamp|ts|date|delay)|"
            r"next_.*|(.*_)?scroll(_.*)?|.*_(clicked|bought|purchased|ordered|converted)"
        ),
    ),
    (
        "label",
        (
            r"((is|has|label|target|did|was)_)?(label|target|y|click|clicked|clk|like|liked|likes|love|"
            r"long_?view|valid_?view|effective_?view|follow|followed|share|shared|forward|comment|"
            r"commented|favou?rite|favou?rited|cart|add_to_cart|addtocart|purchase|purchased|buy|"
            r"bought|pay|conversion|converted|convert|cvr|order|ordered|install|installed|download|"
            r"downloaded|response|finish|finished|skip|skipped|hate|dislike|interested|engaged|use|"
            r"used)(_(label|flag|target))?|labels?_.+|.+_label"
        ),
    ),
    ("rating", r"((user|item|movie|review)_)?(rating|ratings|stars|grade|review_score)"),
    ("weight", r"(.*_)?weights?"),
    ("first_event", r"(.*_)?first_(event|index|number)"),
    ("position", r"(.*_)?(position|pos|slot_(index|number)|rank|show_index|place|impression_rank)"),
    (
        "user",
        (
            r"(user|member|customer|visitor|viewer|account|reviewer|person)s?(_?(id|ids|no|key|number))?"
            r"|uid|u_?id|device_id"
        ),
    ),
    (
        "request",
        (
            r"(request|req|impression|session|search|query|trace|slate|pageview|display|event_group)_?id"
            r"|qid|request"
        ),
    ),
    (
        "item",
        (
            r"(target_)?(item|article|product|movie|film|video|news|ad|adgroup|creative|song|track|"
            r"music|doc|document|photo|app|business|listing|post|note|book|goods|candidate|asin|sku|"
            r"feed|job|poi)s?_?(id|ids|key)|(target_)?(item|iid|asin|sku|movie|article|candidate)"
        ),
    ),
    (
        "time",
        (
            r"(.*_)?(timestamp|ts|unix_?time|event_?time|time_?stamp|datetime|date|time|at|"
            r"time_(s|ms|us))"
        ),
    ),
    ("scenario", r"scenario(_id)?|scene(_id)?|surface|tab|domain(_id)?|business_domain"),
    (
        "moment",
        (
            r"((event|request|local|time|is|of|user)_)?(hour|hour_of_day|weekday|day|dayofweek|"
            r"day_of_week|day_time|daytime|month|weekend|isweekend|season|minute|holiday|device|"
            r"device_type|os|platform|browser|network|weather|country|city|location|region|page|"
            r"channel|referrer|homework)"
        ),
    ),
    (
        "id",
        (
            r"(.*_)?(id|ids|code|codes|type|category|categories|cate|cat|tag|tags|genre|genres|brand|"
            r"class|creator|author|publisher|seller|shop|store|advertiser|campaign|topic|artist|zip|postcode|zip_code|gender|sex|occupation|name|language|lang|kind|segment|group|"
            r"bucket|is_.*)|is_.*|has_.*|[a-z]*id"
        ),
    ),
    (
        "number",
        (
            r"(.*_)?(price|age|count|counts|cnt|num|number|amount|score|rate|ratio|duration|length|"
            r"ctr|size|year|sum|mean|avg|average|total|value|distance|delay|height|width|days|hours|"
            r"seconds|minutes|income|cost|log|min|max|std)|(num|count|avg|mean|total|log|max|min)_.*"
        ),
    ),
)


@cache
def words(name: str) -> tuple[str, ...]:
    """Split `historyItemIds` or `history_item_ids` into lower-case words."""
    return tuple(word.lower() for word in WORD.findall(name))


def hint(name: str) -> Hint | None:
    """Say what a name means, if anything."""
    joined = "_".join(words(name))
    return next((what for what, regex in _PATTERNS if re.fullmatch(regex, joined)), None)


def is_history_name(name: str) -> bool:
    """Tell whether a name speaks of past events."""
    return bool(HISTORY_WORDS & set(words(name)))


def is_time_name(name: str) -> bool:
    """Tell whether a name of a list speaks of times."""
    return bool(TIME_WORDS & set(words(name)))


def is_same_name(event: str, column: str) -> bool:
    """Tell whether a column of events is named after a column: `hist_item_id` after `item_id`."""
    inner, outer = words(event), words(column)
    return bool(outer) and (inner[-len(outer) :] == outer or inner[: len(outer)] == outer)


def identifier(name: str) -> str:
    """Turn a column's name into the name of a feature or task: no `.`, `/`, `@` or blank in it."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "column"
