"""The exceptions RankLoom raises on purpose.

    RankLoomError
      ConfigError      a run file or an option is wrong (also a ValueError)
      SchemaError      the schema contradicts itself, the model or the data (also a ValueError)
      DataError        a file or a value in it is wrong
      CheckpointError  a checkpoint cannot be read, or does not fit
      ArtifactError    an artifact is damaged, hostile or of another format
      HoistError       a network mixes rows, or cannot be captured
      ServingError     a server cannot answer
        RequestError     what it was asked is wrong
        DeadlineError    not in time
        OverloadedError  it has no room, or is not ready

Each message reads `where: what is wrong. Got x. What to do.`; problems of one kind come together,
one a line. Catch `RankLoomError` to catch them all:

    try:
        rankloom.train(run)
    except rankloom.RankLoomError as error:
        print(error)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class RankLoomError(Exception):
    """Base of every error that RankLoom raises on purpose."""


class ConfigError(RankLoomError, ValueError):
    """An option of a run file, of the command line or of a constructor is wrong."""


class SchemaError(RankLoomError, ValueError):
    """The schema contradicts itself, the model or the data's columns."""


class DataError(RankLoomError):
    """A file cannot be read, or holds a value that the schema does not allow."""


class ArtifactError(RankLoomError):
    """An artifact is damaged, of another format, or holds what no artifact may hold."""


class HoistError(RankLoomError):
    """A network cannot be divided by rate: it mixes rows, or cannot be captured."""


class ServingError(RankLoomError):
    """A server cannot answer."""


class RequestError(ServingError):
    """What a server was asked is wrong; asking again does not help."""


class DeadlineError(ServingError):
    """A server cannot answer in the time that it was given."""


class OverloadedError(ServingError):
    """A server has no room for a request, or is not ready; asking again later may help."""


class CheckpointError(RankLoomError):
    """A checkpoint is damaged, or belongs to another schema or model."""


def join_problems(problems: Sequence[str], *, where: str) -> str:
    """Write all problems of one kind as one message.

    Args:
        problems: One line each, without a final newline; at least one.
        where: What they were found in, such as the run file's name.
    """
    if len(problems) == 1:
        return f"{where}: {problems[0]}" if where else problems[0]
    return f"{where} has {len(problems)} mistakes:\n" + "\n".join(f"  {line}" for line in problems)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give ` Did you mean 'x'?` for the nearest known name, or nothing when none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
