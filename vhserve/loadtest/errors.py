"""What a user can get wrong about a load test; each is one line and exit code 2.

Owns the names. Does not know when they are raised.
"""

from profiles.errors import UserError


class LocustMissing(UserError):
    """locust is not installed."""


class BadExpression(UserError):
    """An SLO or a --fail-if condition cannot be read, or names a figure that does not exist."""


class BadLoad(UserError):
    """Flags that contradict each other, or a load that has nothing to measure."""


class SameEndpoint(UserError):
    """The two endpoints to compare are one."""


class ClientFailed(UserError):
    """A process that sends requests ended with an error, or did not end."""
