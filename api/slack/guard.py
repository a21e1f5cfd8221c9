"""Is a request Slack's own? Whatever is wrong with a signature is 401, and nothing behind this door sees an unsigned request.

Slack's scheme: `v0=` + HMAC-SHA256, keyed with the app's signing secret, of `v0:<timestamp>:<body>`; the timestamp may be five
minutes off (docs.slack.dev/authentication/verifying-requests-from-slack). Headers and body are judged as bytes: decoding them first
is where verifiers raise, on a signature that is not ASCII, a body that is not UTF-8, a timestamp with a thousand digits.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from fastapi import Request

from api.bodies import read_capped
from api.metrics import Metrics
from api.problems import Problem

SLACK_LIMIT_BYTES = 1024 * 1024
"""A click carries the message it was made on, so Slack's bodies are larger than the API's."""

FRESH_SECONDS = 300
"""How old, or how far ahead, a timestamp may be; Slack's own recommendation."""

BODY_SECONDS = 2.0
"""Slack hangs up after 3 s."""

TIMESTAMP_HEADER = b"x-slack-request-timestamp"
SIGNATURE_HEADER = b"x-slack-signature"

_TIMESTAMP = re.compile(rb"[0-9]{1,12}\Z")
_SIGNATURE = re.compile(rb"v0=[0-9a-f]{64}\Z")

RawHeaders = Sequence[tuple[bytes, bytes]]


class Refusal(StrEnum):
    """Why a request is not taken for Slack's; for the metrics, never for the answer."""

    MISSING = "missing"
    DUPLICATED = "duplicated"
    MALFORMED = "malformed"
    STALE = "stale"
    FORGED = "forged"


@dataclass(frozen=True)
class SignedRequest:
    """A body that Slack signed, and when its request arrived."""

    body: bytes
    received_at: datetime
    arrived: float
    """The same moment on the monotonic clock: Slack's 3 s count from here, the time that the body took included."""

    def left_of(self, seconds: float) -> float:
        """How much is left of `seconds` that began with the request; a moment at the least, so that what is tried has a chance."""
        return max(seconds - (time.monotonic() - self.arrived), 0.05)


@dataclass(frozen=True)
class Claim:
    """What the headers claim: well-formed and fresh, not yet verified."""

    timestamp: bytes
    signature: bytes

    def holds(self, body: bytes, secret: bytes) -> bool:
        """Whether `secret` signed `body`; compared in constant time. An empty secret signs nothing."""
        if not secret:
            return False
        digest = hmac.new(secret, b"v0:" + self.timestamp + b":" + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(b"v0=" + digest.encode(), self.signature)


def read_claim(headers: RawHeaders, now: float) -> Claim | Refusal:
    """What the headers claim at the Unix time `now`. A header given twice is refused: two readers could read different ones."""
    timestamps = [value for name, value in headers if name.lower() == TIMESTAMP_HEADER]
    signatures = [value for name, value in headers if name.lower() == SIGNATURE_HEADER]
    if not timestamps or not signatures:
        return Refusal.MISSING
    if len(timestamps) > 1 or len(signatures) > 1:
        return Refusal.DUPLICATED
    timestamp, signature = timestamps[0], signatures[0]
    if not _TIMESTAMP.match(timestamp) or not _SIGNATURE.match(signature):
        return Refusal.MALFORMED
    if abs(now - int(timestamp)) > FRESH_SECONDS:
        return Refusal.STALE
    return Claim(timestamp, signature)


class Guard:
    """The door of the Slack routes."""

    def __init__(self, secret: str, metrics: Metrics) -> None:
        """Raises ValueError for a blank secret: then there is no door to open."""
        if not secret.strip():
            raise ValueError("SLACK_SIGNING_SECRET may not be empty")
        self._secret = secret.encode()
        self._metrics = metrics

    async def admit(self, request: Request) -> SignedRequest:
        """Read and verify. Raises Problem 401, 413 (more than 1 MiB), 408 (the body did not arrive in time)."""
        received_at, arrived = datetime.now(UTC), time.monotonic()
        claim = read_claim(request.headers.raw, time.time())
        if isinstance(claim, Refusal):
            raise self._refused(claim)
        body = await read_capped(request, SLACK_LIMIT_BYTES, BODY_SECONDS)
        if not claim.holds(body, self._secret):
            raise self._refused(Refusal.FORGED)
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            raise self._refused(Refusal.MALFORMED) from None
        return SignedRequest(body, received_at, arrived)

    def _refused(self, why: Refusal) -> Problem:
        self._metrics.forged.labels(why.value).inc()
        return Problem(401, "This request does not carry a valid and recent Slack signature.")
