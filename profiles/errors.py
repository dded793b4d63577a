"""Errors a user can mend: one line that says what was wrong, what was expected and what to do.

Everything in the three packages that a user can get wrong raises a subclass of `UserError`; the command line prints it
and exits with 2. Programming errors are not among them and keep their traceback.
"""


class UserError(Exception):
    """A mistake the user can mend.

    Parameters
    ----------
    wrong
        What was found, with the name of the file, field or option.
    expected
        What would have been right.
    fix
        What to do, as an imperative.
    """

    def __init__(self, wrong: str, *, expected: str, fix: str) -> None:
        self.wrong, self.expected, self.fix = wrong, expected, fix
        line = f"{wrong}; expected {expected}; {fix}"
        super().__init__(" ".join(line.split()))


class FileUnreadable(UserError):
    """A file does not exist, is not a file, or may not be read."""


class FileUnwritable(UserError):
    """An output path cannot be written; raised before any work is done."""


class FileTruncated(UserError):
    """A file ends in the middle of its JSON."""


class UnknownField(UserError):
    """A file has a field that its version does not know."""


class MissingField(UserError):
    """A file lacks a field that its version requires."""


class WrongValue(UserError):
    """A field's value has the wrong type or lies outside its range."""


class NotFinite(UserError):
    """A number is NaN or infinite."""


class WrongShape(UserError):
    """An array does not have one entry per layer and head."""


class WrongVersion(UserError):
    """A file's format or version is not one that this release reads."""


class ModelBroken(UserError):
    """A model's folder lacks files or weights, or they are damaged or don't fit its configuration."""


class ModelFilesMissing(ModelBroken):
    """A model's folder lacks files, or the cache of a Hub model does, which may not be fetched yet."""


class ModelQuantised(UserError):
    """A checkpoint's weights are quantised, so that heads can neither be measured nor cut out of them."""


class ModelMismatch(UserError):
    """A profile or plan belongs to another model, revision or geometry."""


class LayoutRefused(UserError):
    """A plan asks for heads that no KV cache layout can hold."""


class BudgetTooLarge(UserError):
    """More heads are asked for than the stage has, or than its unprotected heads are."""


class FileTooLarge(UserError):
    """A file is far larger than any profile or plan."""


class NotJson(UserError):
    """A file is complete but is not JSON."""


class DuplicateField(UserError):
    """A JSON object names a field twice."""


class ProtectedHeadTreated(UserError):
    """A plan treats a head that it says is protected."""


class SplitGroup(UserError):
    """A plan of granularity `kv_group` treats the query heads of one KV head differently."""


class RankingMissing(UserError):
    """Heads are to be ranked by a table that the profile does not have."""


class ScoresBroken(UserError):
    """A file of another project's head scores is malformed, or of another geometry."""


class MeansMissing(UserError):
    """Mean compensation is asked for, but the profile has no mean outputs."""
