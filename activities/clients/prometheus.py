"""Prometheus: instant queries, as https://prometheus.io/docs/prometheus/latest/querying/api describes them."""

from datetime import timedelta
from typing import Any, cast

from activities.clients.json_service import JsonAnswer, JsonService, slowed_down
from activities.clients.readings import NoSingleValue, single_number
from activities.errors import InvalidStep, OrchestratorError, OutcomeUnknown, Refused, Unreachable, clip

SAID_CHARACTERS = 300


class Prometheus:
    """The server at PROMETHEUS_URL. It reads only; every method may be called twice."""

    def __init__(self, url: str) -> None:
        self._service = JsonService("Prometheus", url)

    @property
    def where(self) -> str:
        return self._service.where

    async def number(self, query: str, within: timedelta) -> float:
        """The value of an instant query that gives one sample or a scalar.

        Raises: NoSingleValue for any other number of series; InvalidStep for a query that does not parse; Unreachable,
        RateLimited, Refused.
        """
        try:
            # A form, and not a query string: a long query fits, and no log of a proxy keeps it.
            answer = await self._service.call(
                "POST", "/api/v1/query", form={"query": query, "timeout": f"{_milliseconds(within)}ms"}, within=within
            )
        except OutcomeUnknown as error:
            raise Unreachable(str(error)) from None
        data = answer.fields.get("data")
        if answer.status != 200 or answer.fields.get("status") != "success" or not isinstance(data, dict):
            raise self._failure(answer)
        return _number(cast("dict[str, Any]", data), self.where)

    async def aclose(self) -> None:
        await self._service.aclose()

    def _failure(self, answer: JsonAnswer) -> OrchestratorError:
        said, where = clip(" ".join(str(answer.fields.get("error", "")).split()), SAID_CHARACTERS), self.where
        match answer.status:
            case 400 if said:
                return InvalidStep(f"{where} does not understand the query: {said}")
            case 422 if said:
                return NoSingleValue(f"{where} cannot evaluate the query: {said}")
            case 429:
                return slowed_down(where, answer)
            case 401 | 403:
                return Refused(f"{where} lets only those in who have credentials, and PROMETHEUS_URL takes none")
            case status if status >= 500 or status == 408:
                return Unreachable(f"{where} could not do it at this moment (HTTP {status})" + (f": {said}" if said else ""))
            case status:
                return Refused(f"{where} answered HTTP {status}, and not as Prometheus does: check PROMETHEUS_URL")


def _number(data: dict[str, Any], where: str) -> float:
    kind, result = data.get("resultType"), data.get("result")
    try:
        match kind:
            case "scalar":
                samples = [result]
            case "vector":
                samples = [series["value"] for series in cast("list[dict[str, Any]]", result)]
            case _:
                raise NoSingleValue(f"the query gives a {kind}, and one sample or a scalar is needed")
        values = [float(value) for _, value in cast("list[tuple[float, str]]", samples)]
    except (KeyError, TypeError, ValueError):  # a native histogram has no value, for one
        raise NoSingleValue(f"{where} gave a result that holds no number") from None
    return single_number(values, "series")


def _milliseconds(time: timedelta) -> int:
    return max(1, int(time.total_seconds() * 1_000))
