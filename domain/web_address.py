"""Addresses of web services in settings: read strictly, because what follows is a link in Slack or a request with a secret."""

import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # _ is no letter of DNS, but one of container networks
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_ADDRESS = re.compile(
    r"https?://(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^/:\[\]]*))(?::(?P<port>[0-9]{1,5}))?(?:/[A-Za-z0-9._~%/+:@-]*)?"
)

IN_WORDS = "an http:// or https:// URL of a host, with an optional port and path and nothing after them"


def web_address(text: str) -> str:
    """Read an http or https URL without user, query and fragment. Returns: it without trailing slashes.

    Raises: ValueError that says what is allowed and never repeats the text, which may carry a secret.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not (_is_ipv6(match["ipv6"]) if match["ipv6"] is not None else _HOST_NAME.fullmatch(match["host"])):
        raise ValueError(f"must be {IN_WORDS}")
    if match["port"] is not None and not 1 <= int(match["port"]) <= 65_535:
        raise ValueError("must have a port from 1 to 65535")
    return text.rstrip("/")


def is_host(text: str) -> bool:
    """Whether `text` is a host name or an address, without scheme, port and brackets."""
    return len(text) <= 253 and (_HOST_NAME.fullmatch(text) is not None or _is_ipv6(text))


def stays_private(address: str) -> bool:
    """Whether nobody between can read a request to a web address: https, or http that never leaves this machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    return parts.scheme == "https" or host == "localhost" or _is_loopback(host)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False
