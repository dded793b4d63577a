"""Defaults of vLLM's settings that `vhserve serve` makes stricter, and the warning about an open port.

Owns the defaults; whatever the user sets, by vLLM's flag or variable, stays. Does not know plans; what vLLM has no
setting for is in `guard` and `media`.
"""

import ipaddress
import os
from argparse import Namespace
from typing import Any, Final

from vhserve.server.api_keys import api_keys

FLAG_DEFAULTS: Final[dict[str, Any]] = {
    "limit_mm_per_prompt": {"image": 8, "video": 1},
    "shutdown_timeout": 30,
}
"""Defaults of vLLM's flags: images and videos of one prompt (vLLM: 999), seconds
to drain in after SIGTERM (vLLM: 0)."""

MAX_QUEUED_BATCHES: Final = 4
"""Requests that may wait or run, as a multiple of what all engines run at once; vLLM: any number."""

_SEQUENCES: Final = 256
"""vLLM's least default of --max-num-seqs."""


def set_environment(*, max_image_pixels: int, max_sequences: int, any_media_domain: bool) -> None:
    """Set the variables by which vLLM's processes limit media and fan-out.

    Parameters
    ----------
    max_image_pixels
        Width times height beyond which an image is refused before it is decoded.
    max_sequences
        Greatest `n` of a request.
    any_media_domain
        Whether media may come from anywhere while --allowed-media-domains is empty.
    """
    os.environ.setdefault("VLLM_MAX_IMAGE_PIXELS", str(max_image_pixels))
    os.environ.setdefault("VLLM_MAX_N_SEQUENCES", str(max_sequences))
    os.environ.setdefault("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0")
    os.environ.setdefault("VLLM_MEDIA_CONNECTOR", "vhserve-any-domain" if any_media_domain else "vhserve")


def limit_queue(arguments: Namespace) -> None:
    """Limit the number of queued requests of a parsed command line, unless the user has set --max-num-queued-reqs."""
    if arguments.max_num_queued_reqs is None:
        batch = (arguments.max_num_seqs or _SEQUENCES) * arguments.data_parallel_size
        arguments.max_num_queued_reqs = MAX_QUEUED_BATCHES * batch


def exposure_warning(arguments: Namespace) -> str | None:
    """The warning to print if anyone who reaches the server's port can use it, else None."""
    if arguments.uds or api_keys(arguments) or _is_loopback(arguments.host):
        return None
    return (
        f"listening on {arguments.host or 'every address'} without an API key: anyone who reaches port "
        f"{arguments.port} can use the model; set VLLM_API_KEY, or --host 127.0.0.1"
    )


def _is_loopback(host: str | None) -> bool:
    if not host:
        return False
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
