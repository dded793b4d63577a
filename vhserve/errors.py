"""Mistakes a user can make when serving a plan, and what can end a command that runs others.

See `profiles.errors` for what such an error says.
"""

from profiles.errors import UserError


class FlagRefused(UserError):
    """A vLLM flag, or its value, does not go together with a plan."""


class BlockSizeUnsupported(UserError):
    """vLLM's attention on the device does not take KV blocks of this size."""


class AddressUnusable(UserError):
    """The server cannot listen where it is told to."""


class TemplateBroken(UserError):
    """A chat template cannot be read, or is no Jinja template."""


class MemoryTooSmall(UserError):
    """Weights and KV cache do not fit in memory, or the KV cache is too small for one request."""


class ModelNotServable(UserError):
    """vLLM, or vhserve's extension of it, has no such architecture."""


class TreatmentUnsupported(UserError):
    """The plan uses a treatment that the engine cannot serve."""


class PlanMissing(UserError):
    """A model class of vhserve was asked for, but no plan came with it."""


class PlanAltered(UserError):
    """A plan's content does not match the digest that was handed over with it."""


class PlanUnexpected(UserError):
    """The plan is not the one whose digest was asked for."""


class VllmMissing(UserError):
    """vLLM is not installed."""


class StepFailed(UserError):
    """A command that another one ran ended with an error; the error names the step and its log."""


class ServerNotReady(UserError):
    """A server that a command started ended, or was not ready in time; the error names its log."""
