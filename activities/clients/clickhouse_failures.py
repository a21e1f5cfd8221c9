"""What ClickHouse, or the way to it, did wrong, told in the words of the error tree; never with the password in it."""

import re

import aiohttp
from clickhouse_connect.driver.exceptions import DatabaseError, Error, OperationalError

from activities.errors import OrchestratorError, Refused, Unreachable, clip

SERVER_MESSAGE_CHARACTERS = 300

# Codes of ClickHouse's src/Common/ErrorCodes.cpp.
_UNKNOWN_TABLE = 60
_UNKNOWN_DATABASE = 81
_NOT_LET_IN = frozenset({192, 193, 194, 516})  # UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, AUTHENTICATION_FAILED
ACCESS_DENIED = 497
_PASSING = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        236,  # ABORTED, a server that shuts down
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY, a replica without its keeper
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED
        285,  # TOO_FEW_LIVE_REPLICAS
        319,  # UNKNOWN_STATUS_OF_INSERT, harmless: every insert here may be repeated
        394,  # QUERY_WAS_CANCELLED
        425,  # SYSTEM_ERROR
        473,  # DEADLOCK_AVOIDED
        517,  # CANNOT_ASSIGN_ALTER, another process migrates at this moment
        999,  # KEEPER_EXCEPTION
    }
)

_SAID = re.compile(r"DB::Exception: (?!Code: )(.*?)\s*(?:\(version |\Z)", re.DOTALL)  # chDB says "Code: … DB::Exception:" twice
_HTTP_STATUS = re.compile(r"HTTP status (\d{3})")


def failure_of(error: Exception, where: str, password: str = "") -> OrchestratorError:
    """Translate what the client raised. `where` begins the sentence: `ClickHouse at db:8123`."""
    if isinstance(error, TimeoutError):
        return Unreachable(f"{where} did not answer in time")
    code = error.code if isinstance(error, Error) else None
    if code is not None:
        return _refusal(code, where, said(str(error), password))
    status = _HTTP_STATUS.search(str(error))
    if isinstance(error, DatabaseError) and status:
        return _strange_answer(int(status.group(1)), where)
    if _is_certificate_fault(error):
        return Refused(f"{where} has a TLS certificate that is not trusted here: CLICKHOUSE_TLS_CA_CERT names the file of its CA")
    if isinstance(error, aiohttp.ClientError | OperationalError | OSError):
        return Unreachable(f"{where} cannot be reached, or broke off the call")
    return Refused(f"{where} was not asked: a value does not fit its column ({type(error).__name__})")


def _refusal(code: int, where: str, words: str) -> OrchestratorError:
    if code in _NOT_LET_IN:
        return Refused(f"{where} does not let this user in: check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD")
    if code == ACCESS_DENIED:
        return Refused(f"{where} denies this user a right: {words}")
    if code == _UNKNOWN_DATABASE:
        return Refused(f"{where} has no such database, and this user may not create it: {words}")
    if code == _UNKNOWN_TABLE:
        return Refused(f"{where} lacks a table, which `infrasage doctor` would create: {words}")
    if code in _PASSING:
        return Unreachable(f"{where} could not do it at this moment: {words}")
    return Refused(f"{where} refused with code {code}: {words}")


def _strange_answer(status: int, where: str) -> OrchestratorError:
    if status >= 500 or status in (408, 429):
        return Unreachable(f"{where} answered with HTTP status {status}")
    return Refused(
        f"{where} answered with HTTP status {status}, and not as a ClickHouse server: check CLICKHOUSE_HOST and CLICKHOUSE_PORT"
    )


def said(message: str, password: str = "") -> str:
    """The server's own words on one line, without the password and without what the client puts around them."""
    match = _SAID.search(message)
    words = " ".join((match.group(1) if match else message).split())
    return clip(words.replace(password, "[hidden]") if password else words, SERVER_MESSAGE_CHARACTERS)


def _is_certificate_fault(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return True
        error = error.__cause__
    return False
