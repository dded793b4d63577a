"""Fetches media of prompts for vLLM's API server: from nowhere but the domains that were named.

Owns what vLLM leaves open: an empty list of domains means none here, and media that cannot be read are the client's
mistake whatever the decoder raised. Everything else is vLLM's own connector. Registered by `engine.plugin`.
"""

from typing import Any, ClassVar, Final

from vllm.exceptions import VLLMError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector


class NamedDomains(MediaConnector):
    """vLLM's connector, which without named domains fetches no remote media."""

    empty_means_any: ClassVar = False

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        self._check(url)
        try:
            return super().load_from_url(url, media_io, fetch_timeout=fetch_timeout)
        except Exception as error:
            raise _client_mistake(url, error) from error

    async def load_from_url_async(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        self._check(url)
        try:
            return await super().load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)
        except Exception as error:
            raise _client_mistake(url, error) from error

    def _check(self, url: str) -> None:
        scheme = url.partition(":")[0].strip().lower()
        if scheme == "data":
            return
        if scheme == "file" and self.allowed_local_media_path is None:
            raise ValueError("this server reads no local files; send the media as a data: URL")
        if scheme != "file" and not self.allowed_media_domains and not self.empty_means_any:
            raise ValueError("this server fetches no remote media; send the media as a data: URL")


class AnyDomain(NamedDomains):
    """The same, with vLLM's meaning of an empty list."""

    empty_means_any = True


NAMES: Final[dict[str, type[NamedDomains]]] = {"vhserve": NamedDomains, "vhserve-any-domain": AnyDomain}
"""What `VLLM_MEDIA_CONNECTOR` calls them."""


def register() -> None:
    """Make both known to vLLM; may be called any number of times."""
    for name, kind in NAMES.items():
        MEDIA_CONNECTOR_REGISTRY.register(name)(kind)


def _client_mistake(url: str, error: Exception) -> Exception:
    """Decoders raise what they like; of media that came with the request, all of it says that they are broken."""
    if isinstance(error, ValueError | VLLMError) or url[:5].lower() != "data:":
        return error
    return ValueError(f"the media cannot be read: {type(error).__name__}")
