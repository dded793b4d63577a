"""What can stop the demo: one of its steps; each error names the step and its log.

Owns the names only.
"""

from profiles.errors import UserError


class StepFailed(UserError):
    """A command of the demo ended with an error."""


class ServerNotReady(UserError):
    """A server of the demo ended, or was not ready in time."""
