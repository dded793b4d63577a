"""The `vhserve` program: runs one command; an interrupt ends it, at any time, with exit code 130 and one line.

Imports nothing but what that takes: Ctrl-C while the commands are imported is an interruption, too.
Does not know the commands: `vhserve.command_line` does.
"""

import _thread
import os
import signal
import sys
from collections.abc import Sequence

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

if os.environ.keys() & {"VHSERVE_IMPORTS_MENDED", "VHSERVE_PARENT_PROCESS"}:  # a server's: `vhserve.compat` says why
    from vhserve.compat.processes import mend_child_process

    mend_child_process()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Arguments without the program's name; the process's own by default.

    Returns
    -------
    int
        0, 1 when a check that the user asked for fails, 2 after a mistake the user can mend, 130 when interrupted, 141
        when nobody reads standard output any more.
    """
    if argv is None:
        sys.unraisablehook = _raise_again
        _import_commands()
    try:
        from vhserve.command_line import run

        code = run(sys.argv[1:] if argv is None else argv)
    except BaseException as error:
        if not _comes_of_interrupt(error):
            raise
        if argv is None:
            _end_silently_on_interrupt()
        print("vhserve: interrupted", file=sys.stderr)
        return INTERRUPTED
    if argv is None:
        _end_silently_on_interrupt()
    return code


def _import_commands() -> None:
    """Import the commands; an interrupt ends the process at once, for some modules panic when one is raised in them."""

    def end(*_: object) -> None:
        os.write(2, b"vhserve: interrupted\n")
        os._exit(INTERRUPTED)

    default = signal.signal(signal.SIGINT, end)
    try:
        import vhserve.command_line  # noqa: F401
    finally:
        signal.signal(signal.SIGINT, default)


def _comes_of_interrupt(error: BaseException | None) -> bool:
    """Whether an error is an interrupt, or what a library made of one, as some do while they are imported."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Raise an interrupt once more that came where Python can raise nothing, such as in a weak reference's callback."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(unraisable)


def _end_silently_on_interrupt() -> None:
    """From here on, while the interpreter ends, Ctrl-C ends the process at once instead of printing a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
