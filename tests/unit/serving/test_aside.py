"""Much work is done in a thread, little at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rankloom.errors import RequestError
from rankloom.serving.aside import aside


def fail() -> None:
    raise RequestError("body: is wrong.")


@pytest.mark.parametrize("is_large", [True, False])
def test_much_work_leaves_the_loop_free(is_large: bool) -> None:
    async def done() -> list[str]:
        seen = []
        is_seen = threading.Event()

        def note() -> None:
            seen.append("loop")
            is_seen.set()

        def work() -> None:
            # Only a loop that is free can set it meanwhile.
            is_seen.wait(10.0 if is_large else 0.1)
            seen.append("work")

        asyncio.get_running_loop().call_soon(note)
        await aside(work, is_large=is_large)
        await asyncio.sleep(0)
        with pytest.raises(RequestError):
            await aside(fail, is_large=is_large)
        return seen

    assert asyncio.run(done()) == (["loop", "work"] if is_large else ["work", "loop"])
