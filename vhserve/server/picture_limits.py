"""Counts the pixels of every request's pictures and frames of videos, by the size rules of the server's processors.

Owns the middleware that begins a count with each request. `request_pictures` says what is counted, and `media` counts.
"""

from typing import Any

from profiles.pictures.resizing import ResizeRule
from vhserve.compat.prompts import media_processor_of
from vhserve.server.media import max_image_pixels
from vhserve.server.request_pictures import PixelLimits, RequestPictures, current
from vhserve.server.settings import settings_of


class PictureLimits:
    """ASGI middleware. It reads the processor at the first ASGI scope, which is the lifespan, as `PlanMetrics` does."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.rules: tuple[ResizeRule, ResizeRule] | None = None
        self.limits = PixelLimits()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.rules is None and "app" in scope:
            renderer = scope["app"].state.engine_client.renderer
            of_images, of_videos = (ResizeRule.of(media_processor_of(renderer, name)) for name in ("image", "video"))
            self.rules = of_images, of_videos
            self.limits = PixelLimits(max_image_pixels(), settings_of(scope["app"]).max_request_pixels)
        if scope["type"] != "http" or self.rules is None:
            await self.app(scope, receive, send)
            return
        token = current.set(RequestPictures(self.limits, *self.rules))
        try:
            await self.app(scope, receive, send)
        finally:
            current.reset(token)
