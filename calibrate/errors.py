"""Errors of looking at a model: which models and datasets cannot be taken, and what stops a run.

Owns their names only; the words are written where they are raised. Every one is a `UserError`: one line, exit code 2.
"""

from profiles.errors import UserError


class UnknownModel(UserError):
    """A model name is no alias, no folder and not on the Hub."""


class ModelOffline(UserError):
    """A Hub model is not in the local cache, and the Hub cannot be asked."""


class UnsupportedModel(UserError):
    """A model is no vision-language model that calibration can look into, or not in transformers' format."""


class DatasetUnknown(UserError):
    """A dataset name is neither built in nor a file."""


class DatasetBroken(UserError):
    """A dataset file is malformed, or more of its images are broken than may be skipped."""


class PictureTooLarge(UserError):
    """A model's processor would make more pixels of a sample's picture than a server lets it."""


class ImageBackendMissing(UserError):
    """torchvision, which resizes pictures in vLLM, is not installed, so that the model would be shown other pixels."""


class ProcessorLibraryMissing(UserError):
    """A library that a model's processor needs is not installed."""


class FamilyUnknown(UserError):
    """A dataset has no question family of that name."""


class SplitUnknown(UserError):
    """A dataset has no split of that name."""


class SamplesTooFew(UserError):
    """Fewer samples are asked for than one question of the dataset has."""


class DatasetLibraryMissing(UserError):
    """A dataset needs the library `datasets`, which is not installed."""


class DatasetOffline(UserError):
    """A dataset is not in the local cache, and the Hub cannot be asked or does not have it."""


class AnswersTooShort(UserError):
    """Heads are to be treated in replies only, and no answer of the dataset has a token that such a reply predicts."""


class NoImageTokens(UserError):
    """A prompt came out without image tokens, so that no head's image weight can be measured."""


class TemplateBroken(UserError):
    """A model's chat template cannot be rendered for a picture and a question."""


class PlaceholderInText(UserError):
    """A question holds the text that stands for a picture, where no picture can go."""


class PromptTooLong(UserError):
    """A sample's prompt has more tokens than the model takes."""


class DeviceUnavailable(UserError):
    """The device that was asked for does not exist here."""


class OutOfDeviceMemory(UserError):
    """A batch does not fit in the device's memory."""


class NotFiniteAttention(UserError):
    """A model's attention is NaN or infinite in the dtype it runs in."""


class StateMismatch(UserError):
    """A saved state of an interrupted run belongs to other settings."""
