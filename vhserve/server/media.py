"""Media connectors for vLLM's API server that fetch from allowed domains only, and open pictures as calibration does.

Owns the differences from vLLM's own connector: an empty list of allowed domains means none; pictures are opened by
`profiles.pictures`, and counted before that (`request_pictures`); media that cannot be decoded are a client error,
whichever exception the decoder raised, and of a picture it says which. Registered by `engine.plugin`; knows no plans.
"""

import binascii
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Final

from PIL import Image
from vllm import envs
from vllm.exceptions import VLLMError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector, MediaWithBytes
from vllm.multimodal.media.image import ImageMediaIO

from profiles.pictures.opening import decode, read_header, to_rgb
from profiles.pictures.resizing import ResizeRule
from vhserve.server.request_pictures import PixelLimits, RequestPictures, current


class PictureIO(ImageMediaIO):
    """Opens pictures as calibration does; another mode than RGB, which a request may ask for, is vLLM's conversion."""

    def __init__(self, pictures: RequestPictures, **options: Any) -> None:
        super().__init__(**options)
        self._pictures = pictures

    def load_base64(self, media_type: str, data: str) -> Any:
        try:
            return super().load_base64(media_type, data)
        except binascii.Error as error:
            raise ValueError(f"its base64 is damaged ({error})") from error

    def load_bytes(self, data: bytes) -> MediaWithBytes[Image.Image]:  # type: ignore[override]  # as vLLM
        opened = read_header(data)
        self._pictures.admit(opened.size)
        decoded = decode(opened)
        if self.image_mode == "RGB":
            converted = to_rgb(decoded, self.rgba_background_color)
        else:
            converted = self._convert_image_mode(decoded)
        # What the cache keys hold beside the file, as in vLLM.
        options = {"image_mode": self.image_mode, "rgba_background_color": self.rgba_background_color}
        return MediaWithBytes(converted, data, options if converted is not decoded else None)


class AllowedDomainsConnector(MediaConnector):
    """vLLM's connector, except that it fetches no remote media while the list of allowed domains is empty."""

    empty_means_any: ClassVar = False

    @cached_property
    def _uncounted(self) -> RequestPictures:
        """Of pictures that come by no request to a server of ours."""
        return RequestPictures(PixelLimits(max_image_pixels()), ResizeRule())

    def fetch_image(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        with self._next_picture(image_mode) as picture_io:
            return self.load_from_url(image_url, picture_io, fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT)

    async def fetch_image_async(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        with self._next_picture(image_mode) as picture_io:
            return await self.load_from_url_async(image_url, picture_io, fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT)

    @contextmanager
    def _next_picture(self, image_mode: str | None) -> Iterator[PictureIO]:
        """What opens the request's next picture; errors of the block say its number."""
        pictures = current.get() or self._uncounted
        number = pictures.next_number()
        try:
            yield PictureIO(pictures, **{"image_mode": image_mode, **self.media_io_kwargs.get("image", {})})
        except ValueError as error:
            if isinstance(error, VLLMError):
                raise
            raise ValueError(f"image {number}: {error}") from error

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


def max_image_pixels() -> int:
    """What `VLLM_MAX_IMAGE_PIXELS` says, which `vhserve serve` sets; 0 is no limit there."""
    return envs.VLLM_MAX_IMAGE_PIXELS or sys.maxsize


def register() -> None:
    """Register both with vLLM; may be called any number of times."""
    for name, kind in CONNECTORS.items():
        MEDIA_CONNECTOR_REGISTRY.register(name)(kind)


def _client_error(url: str, error: Exception) -> Exception:
    """For media inside the request (`data:` URLs), a `ValueError`, which gives status 400; other errors stay."""
    if isinstance(error, ValueError | VLLMError) or url[:5].lower() != "data:":
        return error
    said = (
        str(error) if isinstance(error, NotImplementedError) else type(error).__name__
    )  # the former: vLLM's own words
    return ValueError(f"the media cannot be read: {said}")
