"""The API keys that a server accepts, by vLLM's rules: --api-key, else the variable VLLM_API_KEY.

Owns that rule alone. Does not know which requests need a key: that is in `guard`.
"""

import os
from argparse import Namespace


def api_keys(arguments: Namespace) -> list[str]:
    """Keys of a parsed command line that are not empty; none where the server is open."""
    return [key for key in (arguments.api_key or [os.environ.get("VLLM_API_KEY")]) if key]
