"""Counts the pixels of every request's pictures, by the size rule of the processor that the server uses.

Owns the middleware that begins a count with each request. `request_pictures` says what is counted, and `media` counts.
"""

from typing import Any

from profiles.pictures.resizing import ResizeRule
from vhserve.compat.prompts import image_processor_of
from vhserve.server.media import max_image_pixels
from vhserve.server.request_pictures import PixelLimits, RequestPictures, current
from vhserve.server.settings import settings_of


class PictureLimits:
    """ASGI middleware. It reads the processor at the first ASGI scope, which is the lifespan, as `PlanMetrics` does."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.rule: ResizeRule | None = None
        self.limits = PixelLimits()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.rule is None and "app" in scope:
            self.rule = ResizeRule.of(image_processor_of(scope["app"].state.engine_client.renderer))
            self.limits = PixelLimits(max_image_pixels(), settings_of(scope["app"]).max_request_pixels)
        if scope["type"] != "http" or self.rule is None:
            await self.app(scope, receive, send)
            return
        token = current.set(RequestPictures(self.limits, self.rule))
        try:
            await self.app(scope, receive, send)
        finally:
            current.reset(token)
