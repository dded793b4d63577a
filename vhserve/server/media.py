"""Media connectors for vLLM's API server that fetch from allowed domains only.

Owns two differences from vLLM's own connector: an empty list of allowed domains means none, and media that cannot be
decoded are a client error, whichever exception the decoder raised. Registered by `engine.plugin`; knows no plans.
"""

from typing import Any, ClassVar, Final

from vllm.exceptions import VLLMError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector


class AllowedDomainsConnector(MediaConnector):
    """vLLM's connector, except that it fetches no remote media while the list of allowed domains is empty."""

    empty_means_any: ClassVar = False

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        self._check(url)
        try:
            return super().load_from_url(url, media_io, fetch_timeout=fetch_timeout)
        except Exception as error:
            raise _client_error(url, error) from error

    async def load_from_url_async(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        self._check(url)
        try:
            return await super().load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)
        except Exception as error:
            raise _client_error(url, error) from error

    def _check(self, url: str) -> None:
        scheme = url.partition(":")[0].strip().lower()
        if scheme == "data":
            return
        if scheme == "file" and self.allowed_local_media_path is None:
            raise ValueError("this server reads no local files; send the media as a data: URL")
        if scheme != "file" and not self.allowed_media_domains and not self.empty_means_any:
            raise ValueError("this server fetches no remote media; send the media as a data: URL")


class AnyDomainConnector(AllowedDomainsConnector):
    """The same, with vLLM's meaning of an empty list: any domain is allowed."""

    empty_means_any = True


CONNECTORS: Final[dict[str, type[AllowedDomainsConnector]]] = {
    "vhserve": AllowedDomainsConnector,
    "vhserve-any-domain": AnyDomainConnector,
}
"""By the names that `VLLM_MEDIA_CONNECTOR` takes."""


def register() -> None:
    """Register both with vLLM; may be called any number of times."""
    for name, kind in CONNECTORS.items():
        MEDIA_CONNECTOR_REGISTRY.register(name)(kind)


def _client_error(url: str, error: Exception) -> Exception:
    """For media inside the request (`data:` URLs), a `ValueError`, which gives status 400; other errors stay."""
    if isinstance(error, ValueError | VLLMError) or url[:5].lower() != "data:":
        return error
    return ValueError(f"the media cannot be read: {type(error).__name__}")
