"""Image exit: rows of image blocks leave the forward pass where nothing reads them any more.

Owns which rows of a batch go on into the last layers of a plan, and how these layers run over fewer rows. Does not know
which heads a plan treats, nor how null blocks are found.
"""

__all__ = ["choice", "late_layers", "rows", "stage"]
