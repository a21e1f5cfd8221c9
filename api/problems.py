"""Every error the API answers, as `application/problem+json` (RFC 9457): one sentence, never a traceback.

`Problem` is raised by routes and by what they call; the Slack surface shows its `detail` to the person.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from domain.base import Durable
from domain.faults import place_of, reason_of

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER_SECONDS = 5
"""What a 503 asks the sender to wait."""

FAULTS_SHOWN = 50
"""Most faults listed in one answer: a body of wrong keys must not make an answer many times its size."""

log = logging.getLogger(__name__)


class Fault(Durable):
    """One thing wrong with a request: where (`steps[1].replicas`, empty for the whole) and why."""

    path: str
    reason: str


class Problem(Exception):
    """An answer other than success; `detail` is one sentence for a person."""

    def __init__(self, status: int, detail: str, *, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase


def unavailable(detail: str) -> Problem:
    """503 with `Retry-After`: nothing is known to have happened, and trying again is safe."""
    return Problem(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def invalid(faults: Sequence[Fault]) -> Problem:
    """422 that lists each fault with its path and reason."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Problem(422, f"{f'{first.path}: ' if first.path else ''}{first.reason}{more}", faults=faults)


def faults_of(errors: Sequence[ErrorDetails]) -> list[Fault]:
    """Pydantic's errors in words; the offending value is never repeated, it may be a secret."""
    return [Fault(path=place_of(error["loc"]), reason=reason_of(error)) for error in errors]


def invalid_model(error: ValidationError) -> Problem:
    """422 from a model that refused its input."""
    return invalid(faults_of(error.errors(include_input=False, include_url=False)))


def problem_response(problem: Problem) -> JSONResponse:
    """The answer as it goes over the wire."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.faults:
        content["errors"] = [fault.model_dump() for fault in problem.faults[:FAULTS_SHOWN]]
    return JSONResponse(content, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let every error of `app` be answered here, those of FastAPI and Starlette included."""
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(Exception, _answer_crash)


async def _answer_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)  # noqa: S101 - registered for this class alone
    return problem_response(error)


async def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    details = {404: "There is nothing at this address.", 405: f"This address does not take {request.method}."}
    detail = details.get(error.status_code, str(error.detail))
    return problem_response(Problem(error.status_code, detail, headers=error.headers))


async def _answer_validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    faults = faults_of(cast("Sequence[ErrorDetails]", error.errors()))
    return problem_response(invalid([fault.model_copy(update={"path": _without_kind(fault.path)}) for fault in faults]))


async def _answer_crash(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.scope.get("path"), exc_info=error)
    return problem_response(Problem(500, "InfraSage failed to answer this; the reason is in the log of the API."))


def _without_kind(path: str) -> str:
    """FastAPI begins a path with where the value was: `query.limit`."""
    return path.split(".", 1)[1] if "." in path else path
