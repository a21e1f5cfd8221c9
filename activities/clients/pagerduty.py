"""PagerDuty's Events API v2: one call, keyed by `dedup_key`, so that sending an event twice is sending it once.

Status codes as https://developer.pagerduty.com/docs/send-alert-event gives them. The routing key travels in the body and nowhere
else: it is neither in an address nor in a header, and is taken out of whatever PagerDuty answers.
"""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import SecretStr

from activities.clients.json_service import JsonAnswer, JsonService, slowed_down
from activities.errors import OrchestratorError, OutcomeUnknown, Refused, Unreachable, clip

SAID_CHARACTERS = 300


class PagerDuty:
    """The endpoint PAGERDUTY_EVENTS_URL."""

    def __init__(self, events_url: str) -> None:
        self._service = JsonService("PagerDuty", events_url)

    async def send(self, event: Mapping[str, Any], routing_key: SecretStr) -> None:
        """Send an event of `domain.paging`. Safe to call twice, by its `dedup_key`.

        Raises: Unreachable, RateLimited, Refused.
        """
        key = routing_key.get_secret_value()
        try:
            answer = await self._service.call("POST", json={"routing_key": key, **event})
        except OutcomeUnknown as error:
            raise Unreachable(str(error)) from None
        if answer.status != 202:
            raise self._failure(answer, key)

    async def aclose(self) -> None:
        await self._service.aclose()

    def _failure(self, answer: JsonAnswer, key: str) -> OrchestratorError:
        where, said = self._service.where, _said(answer, key)
        match answer.status:
            case 429:
                return slowed_down(where, answer)
            case status if status >= 500 or status == 408:
                return Unreachable(f"{where} could not do it at this moment (HTTP {status})")
            case 400:
                return Refused(
                    f"{where} refused the event{said}: check PAGERDUTY_SERVICE_KEY and PAGERDUTY_ROUTING_RULES,"
                    " which take the integration keys of Events API v2"
                )
            case status:
                return Refused(f"{where} answered HTTP {status}{said}, and not as PagerDuty does: check PAGERDUTY_EVENTS_URL")


def _said(answer: JsonAnswer, key: str) -> str:
    """PagerDuty's own words, in brackets; nothing where it said none."""
    errors = answer.fields.get("errors")
    texts = [
        str(answer.fields.get("message", "")),
        *(str(error) for error in cast("list[Any]", errors if isinstance(errors, list) else [])),
    ]
    words = " ".join("; ".join(text for text in texts if text).split()).replace(key, "[hidden]")
    return f" ({clip(words, SAID_CHARACTERS)})" if words else ""
