"""The small log of the integration tests."""

from __future__ import annotations

from tests.integration.conftest import _one_thread, log, without_extras

__all__ = ["_one_thread", "log", "without_extras"]
