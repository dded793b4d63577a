"""What becomes of a command whose standard output takes no more: its reader has gone (`| head`), or its disk is full.

Owns which errors are of standard output. Does not know what is written there.
"""

import errno
import os
import select
import sys
from typing import Final

PIPE_CLOSED: Final = 141
"""Exit code where the reader of a pipe has gone: 128 + SIGPIPE, as shells report it."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def reader_has_gone(error: BaseException) -> bool:
    """Whether an error is that nobody reads standard output any more; rich makes an end of the process of it."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError) and _is_broken_pipe(1)


def is_full(error: OSError) -> bool:
    """Whether an error is of a stream, such as standard output, whose device takes no more; not of a named file."""
    return error.filename is None and error.errno in _FULL


def flush() -> None:
    """Write what is buffered.

    Raises
    ------
    OSError
    """
    if sys.stdout is not None:  # it was closed when the process was started
        sys.stdout.flush()


def discard() -> None:
    """Let nothing more be written: Python would write what is left when it ends, and fail again."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
        os.close(null)
    except (OSError, ValueError):  # it is closed
        pass


def _is_broken_pipe(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
