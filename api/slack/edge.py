"""slack-bolt behind FastAPI: the guard verifies, the payload is read, bolt finds the listener, the listener signals.

bolt is run with `process_before_response=True`: it awaits the listener and answers with what that acknowledged. Its default instead
starts the listener on the side and polls for the acknowledgement every 10 ms (10.6 ms at the median for a listener that does
nothing), and answers 404 when that is late, which would tell the person that a stored click had failed.

bolt's own verification is off because the guard has done it, on the bytes; and since no token is asked for in a request, no call
to Slack (`auth.test`) stands between a click and its signal.
"""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from slack_bolt import BoltResponse
from slack_bolt.async_app import AsyncApp, AsyncBoltRequest
from slack_bolt.authorization import AuthorizeResult

from api.problems import Problem
from api.services import Services
from api.slack.commands import COMMAND, Commands
from api.slack.guard import Guard, SignedRequest
from api.slack.interactions import CLICK, SIGNED, Clicks
from api.slack.payloads import Click, Command, read_click, read_command
from api.slack.private import PrivateAnswers, PrivateLine

_quiet = logging.getLogger("infrasage.slack_bolt")
_quiet.setLevel(logging.ERROR)  # at DEBUG bolt logs whole requests, and it warns of a SLACK_BOT_TOKEN that it is not to use


class SlackEdge:
    """The Slack app. One dispatch for both transports: what arrives signed over HTTP, and what Socket Mode hands over."""

    def __init__(self, services: Services, bot: PrivateLine | None) -> None:
        self._app = AsyncApp(
            name="infrasage",
            logger=_quiet,
            process_before_response=True,
            authorize=_authorize,
            request_verification_enabled=False,
            ssl_check_enabled=False,
            url_verification_enabled=False,
            attaching_function_token_enabled=False,
            attaching_conversation_kwargs_enabled=False,
        )
        private = PrivateAnswers(bot, services.settings.slack_api_url)
        Clicks(services.temporal, private, services.metrics).register(self._app)
        Commands(services).register(self._app)

    async def click(self, signed: SignedRequest) -> BoltResponse:
        """Raises Problem 400."""
        click = read_click(signed.body)
        return await self._dispatch(click, CLICK, signed)

    async def command(self, signed: SignedRequest) -> BoltResponse:
        """Raises Problem 400."""
        command = read_command(signed.body)
        return await self._dispatch(command, COMMAND, signed)

    async def _dispatch(self, payload: Click | Command, key: str, signed: SignedRequest) -> BoltResponse:
        # "socket_mode" is how bolt is handed a body that is parsed already, with nothing left to verify.
        context: dict[str, Any] = {key: payload, SIGNED: signed}
        return await self._app.async_dispatch(AsyncBoltRequest(body=payload.for_bolt(), context=context, mode="socket_mode"))


async def _authorize() -> AuthorizeResult:
    """One workspace, one bot, and its token stays in the activities."""
    return AuthorizeResult(enterprise_id=None, team_id=None)


async def signed_request(request: Request) -> SignedRequest:
    """The verified body. Raises Problem 404 (Slack is not configured), 401, 408, 413."""
    guard: Guard | None = request.app.state.slack_guard
    if guard is None:
        raise Problem(404, "Slack is not configured here: set SLACK_SIGNING_SECRET to take its requests.")
    return await guard.admit(request)


Signed = Annotated[SignedRequest, Depends(signed_request)]

router = APIRouter(prefix="/api/v1/slack")


@router.post("/interactions")
async def interactions(request: Request, signed: Signed) -> Response:
    """Clicks on buttons. 200 only after Temporal has the signal; 503 when it has not, and the person is told."""
    edge: SlackEdge = request.app.state.slack_edge
    return _response(await edge.click(signed))


@router.post("/commands")
async def commands(request: Request, signed: Signed) -> Response:
    """The slash command; its answer is the body."""
    edge: SlackEdge = request.app.state.slack_edge
    return _response(await edge.command(signed))


def _response(answer: BoltResponse) -> Response:
    return Response(answer.body, status_code=answer.status, headers=answer.first_headers_without_set_cookie())
