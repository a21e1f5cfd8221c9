"""What a runbook sends over HTTP and what comes back, and which methods and headers it may send; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from activities.errors import InvalidStep

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
IDEMPOTENT_METHODS = READING_METHODS | {"PUT", "DELETE"}
"""RFC 9110 section 9.2.2: sending one twice does what sending it once does."""
METHODS = IDEMPOTENT_METHODS | {"POST", "PATCH"}

# These decide where a request goes, where it ends and how the answer is coded; the client alone may say that.
OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110 section 5.6.2
_VALUE = re.compile(r"[\x20-\x7e\t]*")


@dataclass(frozen=True)
class HttpRequest:
    """One request, secrets filled in: `repr` shows neither the URL nor a header value nor the body.

    `timeout` bounds everything from the DNS question to the last byte of the answer.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout: timedelta = timedelta(seconds=30)


@dataclass(frozen=True)
class HttpAnswer:
    """One complete answer, whatever its status; a redirect is an answer.

    `headers` are the few that a step can use, names in lower case, `location` without its query. `body` is as sent: never
    decompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    elapsed: timedelta


def check_request(request: HttpRequest) -> None:
    """Refuse a request that is not exactly one well-formed HTTP request.

    Raises: InvalidStep naming the method, the header or the timeout, never a value.
    """
    check_method(request.method)
    check_header_names(request.headers)
    for name, value in request.headers.items():
        check_header_value(name, value)
    if request.timeout <= timedelta(0):
        raise InvalidStep("The timeout of an http step must be more than 0 seconds.")


def check_method(method: str) -> None:
    """Refuse a method that is not one of `METHODS`, in capitals."""
    if method not in METHODS:
        raise InvalidStep(f"The method of an http step must be one of {', '.join(sorted(METHODS))}.")


def check_header_names(headers: Mapping[str, str]) -> None:
    """Refuse names that are no tokens, that come twice, or that belong to the client; values may still be unresolved."""
    seen: set[str] = set()
    for name in headers:
        if not _TOKEN.fullmatch(name):
            raise InvalidStep("A header name of an http step may hold letters, digits and hyphens, at most 100.")
        if name.lower() in OWN_HEADERS:
            raise InvalidStep(f"An http step may not set the header {name}: the client sets it itself.")
        if name.lower() in seen:
            raise InvalidStep(f"An http step may set the header {name} once only.")
        seen.add(name.lower())


def check_header_value(name: str, value: str) -> None:
    """Refuse a value that could end the header early; a line break at the end of a secret's file is the usual cause."""
    if not _VALUE.fullmatch(value) or value != value.strip():
        raise InvalidStep(
            f"The value of the header {name} may hold printable ASCII characters only, with no space or line break around it."
        )
