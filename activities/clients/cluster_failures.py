"""What a failed Kubernetes call means: lightkube's and httpx2's exceptions become our error tree, sentence by sentence.

Pure: it reads an exception and returns an error. It must not quote a credential, and what it returns has no cause,
because a cause would carry the request, and the request carries the Authorization header.
"""

import re
from dataclasses import dataclass
from datetime import timedelta

import httpx2
from lightkube import ConfigError

from activities.errors import (
    Conflict,
    InvalidStep,
    NotConfigured,
    OrchestratorError,
    RateLimited,
    Refused,
    Unreachable,
    clip,
)

CALL_FAILURES = (httpx2.HTTPError, ConfigError, OSError, LookupError, TypeError, ValueError)
"""What lightkube raises from a call.

The last three come from answers it cannot read: an error answer without a Content-Type (KeyError), a body that is not
the object asked for (msgspec errors are ValueErrors), the output of a credential plugin.
"""

MAX_RETRY_AFTER_SECONDS = 3_600
SERVER_MESSAGE_CHARACTERS = 300

_TOKEN_SHAPED = re.compile(r"(?i)\b(bearer|basic)\s+\S+|\beyJ[\w-]+\.[\w.-]+")


@dataclass(frozen=True)
class ClusterCall:
    """What a call asks of the API, in RBAC's words, so that a refusal can name what is missing."""

    verb: str
    resource: str
    where: str
    missing: str
    """The whole sentence for 404."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.where}"


class NotApplied(Refused):
    """422 to a patch: the server read it and did not apply it. Callers find out why; it never leaves this package."""


def translate(error: Exception, call: ClusterCall, server: str, timeout: timedelta) -> OrchestratorError:
    """Turn one of CALL_FAILURES into the error to raise."""
    answer = _answer_behind(error)
    if answer is not None:
        return _refusal(answer, call)
    match error:
        case TimeoutError() | httpx2.TimeoutException():
            return Unreachable(f"{server} did not answer within {timeout.total_seconds():g} s: {call}")
        case httpx2.ConnectError():
            return Unreachable(f"{server} cannot be reached ({clip(str(error), 200)}): {call}")
        # The credential does not fit a header; the texts of the last two quote it.
        case ConfigError() | OSError() | UnicodeEncodeError() | httpx2.LocalProtocolError():
            return NotConfigured(
                f"the credentials for {server} cannot be used: check the token, its file or the credential plugin"
                " that KUBECONFIG names"
            )
        case httpx2.RequestError():
            return Unreachable(f"{server} broke off the call ({type(error).__name__}): {call}")
        case _:
            return Unreachable(f"{server} answered something that is not of the Kubernetes API: {call}")


def _answer_behind(error: BaseException) -> httpx2.Response | None:
    """Find the HTTP answer that led to `error`, also where lightkube failed while it translated that answer."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, httpx2.HTTPStatusError):
            return link.response
        link = link.__context__
    return None


def _refusal(answer: httpx2.Response, call: ClusterCall) -> OrchestratorError:
    """Translate an error answer; the codes are those of the Kubernetes API conventions, "HTTP Status codes"."""
    code, said = answer.status_code, _server_message(answer)
    match code:
        case 401:
            return Refused(f"the cluster does not accept our credentials ({call}): renew what KUBECONFIG holds")
        case 403:
            return Refused(f"the cluster does not let us {call}: an RBAC rule for that verb may be missing{said}")
        case 404:
            return InvalidStep(call.missing)
        case 409:
            return Conflict(f"somebody else was writing at the same time, nothing was changed: {call}{said}")
        case 422 if call.verb == "patch":
            return NotApplied(f"the cluster finds the change invalid, nothing was changed: {call}{said}")
        case 429:
            return RateLimited(f"the cluster asks to wait: {call}{said}", retry_after=_retry_after(answer))
        case _ if code >= 500 or code == 408:
            return Unreachable(f"the cluster failed with {code}: {call}{said}", retry_after=_retry_after(answer))
        case _:
            return Refused(f"the cluster answered {code}: {call}{said}")


def _server_message(answer: httpx2.Response) -> str:
    """Quote the server's own words (`Status.message`) without the credential it was sent, nor what looks like one."""
    try:
        message = answer.json()["message"]
    except (LookupError, TypeError, ValueError):  # a proxy in front answers in HTML
        return ""
    if not isinstance(message, str) or not message.strip():
        return ""
    credential = answer.request.headers.get("Authorization", "").partition(" ")[2]
    hidden = message.replace(credential, "[hidden]") if credential else message
    return f" (it says: {clip(_TOKEN_SHAPED.sub('[hidden]', ' '.join(hidden.split())), SERVER_MESSAGE_CHARACTERS)})"


def _retry_after(answer: httpx2.Response) -> timedelta | None:
    """Read Retry-After in seconds, the only form the API server writes, bounded to an hour."""
    seconds = answer.headers.get("Retry-After", "")
    if not re.fullmatch(r"[0-9]{1,9}", seconds):
        return None
    return timedelta(seconds=min(int(seconds), MAX_RETRY_AFTER_SECONDS))
