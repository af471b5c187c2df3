"""What every architecture must pass, a function each.

`tests/contract` calls these on the registered architectures, `rankloom check` on a user's own.
"""

from rankloom.contract.assertions import ASSERTIONS, SLOW_ASSERTIONS
from rankloom.contract.run import Outcome, check_architecture
from rankloom.contract.subject import Subject

__all__ = ["ASSERTIONS", "SLOW_ASSERTIONS", "Outcome", "Subject", "check_architecture"]
