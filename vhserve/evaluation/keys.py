"""The API key of a server: read from the environment, so that it is in no command line and no results file."""

import os

from vhserve.evaluation.errors import KeyMissing


def api_key(variable: str) -> str:
    """Return the key that an environment variable holds, or a placeholder that servers without a key ignore.

    Raises
    ------
    KeyMissing
        When a variable other than the usual one is named and not set.
    """
    key = os.environ.get(variable)
    if key is None and variable != "OPENAI_API_KEY":
        raise KeyMissing(
            f"environment variable {variable} is not set", expected="an API key in it", fix="set it, or drop the flag"
        )
    return key or "none"  # the client insists on a key
