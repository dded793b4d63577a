"""Can the server listen where it is told to? Binds the address for a moment, as vLLM will for good.

Does not know requests. Between this check and vLLM's own binding another program can still take the port.
"""

import errno
import ipaddress
import os
import socket
from pathlib import Path
from typing import Final

from vhserve.errors import AddressUnusable
from vhserve.server.preflight.flags import GivenFlags

DEFAULT_PORT: Final = 8000
"""vLLM's."""


def check_address(flags: GivenFlags) -> None:
    """Refuse a port, host or socket file that the server cannot listen on.

    Raises
    ------
    AddressUnusable
    """
    if "--headless" in flags or flags.get("--api-server-count") == "0":
        return
    if uds := flags.get("--uds"):
        _check_socket_file(Path(uds))
        return
    port = flags.get("--port")
    _bind(flags.get("--host"), DEFAULT_PORT if port is None else int(port))


def _bind(host: str | None, port: int) -> None:
    if not 0 <= port <= 65535:
        raise AddressUnusable(f"--port {port} is no port", expected="a number from 1 to 65535", fix="correct --port")
    where = f"port {port} of {host or 'every address'}"
    try:
        with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host or "", port))
    except socket.gaierror as error:
        raise AddressUnusable(
            f"--host {host} is no address of this machine ({error.strerror})",
            expected="an address or name of this machine, such as 127.0.0.1 or 0.0.0.0",
            fix="correct --host",
        ) from error
    except OSError as error:
        raise _refused(error, host, port, where) from error


def _refused(error: OSError, host: str | None, port: int, where: str) -> AddressUnusable:
    if error.errno == errno.EADDRINUSE:
        return AddressUnusable(
            f"{where} is in use",
            expected="a free port",
            fix="give another --port, or end the program that listens there",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return AddressUnusable(
            f"{where} may not be used by this user", expected="a port from 1024", fix="give another --port"
        )
    return AddressUnusable(
        f"{where} cannot be listened on ({error.strerror})",
        expected="an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        fix="correct --host",
    )


def _family(host: str | None) -> socket.AddressFamily:
    try:
        version = ipaddress.ip_address(host or "0.0.0.0").version
    except ValueError:
        return socket.AF_INET
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _check_socket_file(path: Path) -> None:
    if path.exists():
        raise AddressUnusable(
            f"--uds {path} exists", expected="a path for a new socket", fix="remove the file, or give another path"
        )
    if not os.access(path.parent, os.W_OK):
        raise AddressUnusable(
            f"--uds {path}: its folder does not exist, or may not be written",
            expected="a path for a new socket",
            fix="make the folder, or give another path",
        )
