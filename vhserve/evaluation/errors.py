"""What a user can get wrong when measuring a server; each is one line and exit code 2.

Owns the names. Does not know when they are raised.
"""

from profiles.errors import UserError


class BaseUrlInvalid(UserError):
    """A base URL is not an http(s) address."""


class ServerUnreachable(UserError):
    """Nothing that speaks the OpenAI protocol answers at the base URL."""


class ServerRefused(UserError):
    """The server answers, but refuses the API key."""


class ServerLost(UserError):
    """So many requests failed in a row that going on would measure nothing."""


class ModelNotServed(UserError):
    """The server does not serve the model asked for, or serves several and none was named."""


class ResultsBroken(UserError):
    """A results file does not follow its schema."""


class ResultsMismatch(UserError):
    """Results belong to other samples, so pairing them would compare different questions."""


class PlanMismatch(UserError):
    """The plan that a measurement is to be attached to is not the one that was served."""


class NothingToMeasure(UserError):
    """The dataset and families asked for hold no sample."""


class KeyMissing(UserError):
    """The environment variable that should hold the API key is not set."""
