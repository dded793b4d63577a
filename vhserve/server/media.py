"""Media connectors for vLLM's API server that fetch from allowed domains only, and open pictures as calibration does.

Owns the differences from vLLM's own connector: an empty list of allowed domains means none; pictures are opened by
`profiles.pictures`; they and frames of videos are counted before that (`request_pictures`); media that cannot be
decoded are a client error, whichever exception the decoder raised, and it says which picture or video. Registered by
`engine.plugin`; knows no plans.
"""

import binascii
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Final

from PIL import Image
from vllm import envs
from vllm.exceptions import VLLMError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector, MediaWithBytes
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.media.video import VideoMediaIO
from vllm.multimodal.video import get_video_loader_backend_for_processor

from profiles.pictures.limits import Size
from profiles.pictures.opening import decode, read_header, to_rgb
from profiles.pictures.resizing import ResizeRule
from vhserve.compat.videos import counting_loader
from vhserve.server.request_pictures import PixelLimits, RequestPictures, current


class PictureIO(ImageMediaIO):
    """Opens pictures as calibration does; another mode than RGB, which a request may ask for, is vLLM's conversion."""

    def __init__(self, admit: Callable[[Size], None], **options: Any) -> None:
        super().__init__(**options)
        self._admit = admit

    def load_base64(self, media_type: str, data: str) -> Any:
        try:
            return super().load_base64(media_type, data)
        except binascii.Error as error:
            raise ValueError(f"its base64 is damaged ({error})") from error

    def load_bytes(self, data: bytes) -> MediaWithBytes[Image.Image]:  # type: ignore[override]  # as vLLM
        opened = read_header(data)
        self._admit(opened.size)
        decoded = decode(opened)
        if self.image_mode == "RGB":
            converted = to_rgb(decoded, self.rgba_background_color)
        else:
            converted = self._convert_image_mode(decoded)
        # What the cache keys hold beside the file, as in vLLM.
        options = {"image_mode": self.image_mode, "rgba_background_color": self.rgba_background_color}
        return MediaWithBytes(converted, data, options if converted is not decoded else None)


class VideoIO(VideoMediaIO):
    """Has frames counted before they are decoded; those that are sent as pictures are opened as pictures are."""

    def __init__(self, pictures: RequestPictures, image: dict[str, Any], video: dict[str, Any]) -> None:
        super().__init__(PictureIO(pictures.admit_frames, **image), **video)
        self.video_loader = counting_loader(type(self.video_loader), pictures.admit_frames)()


class AllowedDomainsConnector(MediaConnector):
    """vLLM's connector, except that it fetches no remote media while the list of allowed domains is empty."""

    empty_means_any: ClassVar = False

    @cached_property
    def _uncounted(self) -> RequestPictures:
        """Of pictures that come by no request to a server of ours."""
        return RequestPictures(PixelLimits(max_image_pixels()), ResizeRule())

    def fetch_image(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        with self._next("image") as pictures:
            picture_io = self._picture_io(pictures, image_mode)
            return self.load_from_url(image_url, picture_io, fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT)

    async def fetch_image_async(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        with self._next("image") as pictures:
            picture_io = self._picture_io(pictures, image_mode)
            return await self.load_from_url_async(image_url, picture_io, fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT)

    def fetch_video(self, video_url: str, *, image_mode: str | None = "RGB", video_processor: str | None = None) -> Any:
        with self._next("video") as pictures:
            video_io = self._video_io(pictures, image_mode, video_processor)
            return self.load_from_url(video_url, video_io, fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT)

    async def fetch_video_async(
        self, video_url: str, *, image_mode: str | None = "RGB", video_processor: str | None = None
    ) -> Any:
        with self._next("video") as pictures:
            video_io = self._video_io(pictures, image_mode, video_processor)
            return await self.load_from_url_async(video_url, video_io, fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT)

    @contextmanager
    def _next(self, what: str) -> Iterator[RequestPictures]:
        """What counts the request's next picture or video; errors of the block say its number."""
        pictures = current.get() or self._uncounted
        number = pictures.next_number(what)
        try:
            yield pictures
        except ValueError as error:
            if isinstance(error, VLLMError):
                raise
            raise ValueError(f"{what} {number}: {error}") from error

    def _image_options(self, image_mode: str | None) -> dict[str, Any]:
        return {"image_mode": image_mode, **self.media_io_kwargs.get("image", {})}

    def _picture_io(self, pictures: RequestPictures, image_mode: str | None) -> PictureIO:
        return PictureIO(pictures.admit, **self._image_options(image_mode))

    def _video_io(self, pictures: RequestPictures, image_mode: str | None, video_processor: str | None) -> VideoIO:
        options = dict(self.media_io_kwargs.get("video", {}))
        if "video_backend" not in options and (own := get_video_loader_backend_for_processor(video_processor)):
            options["video_backend"] = own  # as in vLLM
        return VideoIO(pictures, self._image_options(image_mode), options)

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
