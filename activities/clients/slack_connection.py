"""The HTTP session that a Slack client calls through, and what a call without an answer means."""

from datetime import timedelta
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from activities.clients.slack_failures import not_slack
from activities.errors import OrchestratorError, Refused, Unreachable

CALL_TIMEOUT = timedelta(seconds=10)
"""Bound of one whole call, connecting included."""


class Connection:
    """One HTTP session, opened by the first call, and what may be said about its far end."""

    def __init__(self, url: str, timeout: timedelta) -> None:
        """The proxies of the environment are honoured, and so is NO_PROXY. An unusable `url` shows at the first call."""
        self._timeout_seconds = timeout.total_seconds()
        scheme, host = _scheme_and_host(url)
        self.host = host or "the configured address"
        self.proxy = None if proxy_bypass(self.host) else getproxies().get(scheme)
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_seconds))
        return self._session

    async def aclose(self) -> None:
        if self._session:
            await self._session.close()

    def failure(self, trouble: Exception) -> OrchestratorError:
        """The error for a call without an answer; the text of `trouble` may hold the URL, so only its kind is told."""
        match trouble:
            case TimeoutError():
                return Unreachable(f"Slack ({self.host}) gave no answer within {self._timeout_seconds:g} s.")
            case aiohttp.ClientConnectorDNSError():
                return Unreachable(f"Slack cannot be reached: the name {self.host} is not known.")
            case aiohttp.ClientConnectorCertificateError():
                return Unreachable(f"Slack ({self.host}) cannot be reached: its TLS certificate is not trusted here.")
            case aiohttp.ClientSSLError():
                return Unreachable(f"Slack ({self.host}) cannot be reached: it does not speak TLS as expected.")
            case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
                return Refused("SLACK_API_URL and SLACK_WEBHOOK_URL must be complete URLs that start with https://.")
            case ValueError():
                return not_slack(self.host)
            case _:
                return Unreachable(f"Slack ({self.host}) cannot be reached: the connection failed.")


def _scheme_and_host(url: str) -> tuple[str, str]:
    """Both empty where `url` is none; the call will then say so, and without repeating it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.hostname or ""
