"""Long work beside the event loop of a front end, which answers others meanwhile.

Reading 10,000 candidates takes some 10 ms. One thread does such work, a request after the other:
threads share Python, so that more of them would only keep the loop from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LARGE_BYTES = 256 << 10
"""A larger body is read aside: a smaller one takes less time than the change of threads costs."""
LARGE_CANDIDATES = 2_000
"""More candidates are decoded, and their scores written, aside."""
_pool = ThreadPoolExecutor(1, "aside")
T = TypeVar("T")


async def aside(work: Callable[[], T], *, is_large: bool) -> T:
    """Do work, in the thread if it is much.

    Args:
        work: What to do.
        is_large: Whether it is; else it is done at once.
    """
    if not is_large:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_pool, work)
