"""Loopback ports of the embedded stack: finding free ones, and saying clearly when one is taken."""

import errno
import secrets
import socket

from cli.embedded_data_dir import EmbeddedStackError

LOOPBACK = "127.0.0.1"

# Below the range from which Linux (32768..60999) and macOS (49152..65535) take the source ports of outgoing
# connections, so that no connection can slip onto a port between its choice and its use.
_LOWEST, _HIGHEST = 20_000, 32_000
_ATTEMPTS = 500

_handed_out: set[int] = set()


def free_port() -> int:
    """Choose a TCP port on 127.0.0.1 that nobody listens on; never the same one twice in a process.

    Raises: EmbeddedStackError if none was found.
    """
    for _ in range(_ATTEMPTS):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if port not in _handed_out and _why_not_free(port) is None:
            _handed_out.add(port)
            return port
    raise EmbeddedStackError(f"No free port was found on {LOOPBACK} between {_LOWEST} and {_HIGHEST}.")


def require_free_port(port: int, option: str) -> None:
    """Check that a server could listen on 127.0.0.1:`port`; `option` is the command line option that changes it.

    Raises: EmbeddedStackError naming the port and the option.
    """
    reason = _why_not_free(port)
    if reason is not None:
        raise EmbeddedStackError(f"Port {port} on {LOOPBACK} {reason}: choose another one with {option}.")


def _why_not_free(port: int) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of an earlier run that are still closing do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return None
