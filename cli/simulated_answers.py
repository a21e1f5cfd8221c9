"""How the simulated cluster answers: JSON as the API server writes it, and its refusals as `Status` objects."""

import json
from collections.abc import Mapping

from aiohttp import web

from cli.simulated_deployment import JsonObject


class Denied(Exception):
    """An answer other than success, as the `Status` object of the Kubernetes API."""

    def __init__(self, code: int, reason: str, message: str, *, details: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status: JsonObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details or {},
            "code": code,
        }


def json_answer(document: JsonObject, code: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer as the API server does, whose Content-Type names no charset: some clients compare it letter by letter."""
    content_type = {"Content-Type": "application/json"}
    return web.Response(body=json.dumps(document).encode(), status=code, headers={**content_type, **(headers or {})})
