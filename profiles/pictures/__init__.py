"""Pictures as files: the one way to open them, and how large they may be. For calibration and for the server alike.

`calibrate` imports nothing of `vhserve`, and both must show a model the same pixels, so this stands in the one package
below both. Knows Pillow and numpy; does not know data sets, requests, models or processors' libraries.
"""

__all__ = ["limits", "opening", "resizing"]
