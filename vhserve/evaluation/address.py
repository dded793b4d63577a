"""Addresses of endpoints: what is one, and whether proxies may be used to reach it. Opens no connection."""

from urllib.parse import urlsplit

from vhserve.evaluation.errors import BaseUrlInvalid


def check_base_url(base_url: str) -> str:
    """Return a base URL without a trailing slash.

    Raises
    ------
    BaseUrlInvalid
        When it is not an http(s) address.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BaseUrlInvalid(
            f"base URL {base_url!r} is not an address",
            expected="an address such as http://127.0.0.1:8000/v1",
            fix="give the address of the server with its /v1",
        )
    return base_url.rstrip("/")


def trusts_environment(base_url: str) -> bool:
    """Whether proxies of the environment may be used: not for the machine itself, which no proxy can reach."""
    return urlsplit(base_url).hostname not in ("127.0.0.1", "localhost", "::1")
