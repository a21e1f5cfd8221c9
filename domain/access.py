"""Roles, scopes and API keys: who may do what, decided by pure functions."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from domain.base import Durable, Name, in_words


class Role(StrEnum):
    """Each includes the lower ones: viewer < operator < admin."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


class Scope(StrEnum):
    INGESTION = "ingestion"
    """May only post anomalies."""
    READONLY = "readonly"
    """May only read."""
    FULL = "full"
    """Everything that its role allows."""


KEY_PREFIX = "isage_"


def generate_key() -> str:
    """A fresh key in clear, shown once: `isage_` and 43 URL-safe characters (256 bits)."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """SHA-256, 64 lower-case hexadecimal digits. Keys are random, so no salt or slow hash is needed."""
    # Surrogates are let through: what a client presents is foreign, and it has to end as "no such key".
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _of_something(value: str) -> str:
    if value == hash_key(""):
        raise ValueError("is the hash of an empty key")
    return value


KeyHash = Annotated[
    str,
    StringConstraints(to_lower=True),
    in_words("[0-9a-f]{64}", "must be the SHA-256 of the key, 64 hexadecimal digits"),
    AfterValidator(_of_something),
]


class ApiKey(Durable):
    """A key as it is kept: only its hash."""

    name: Name
    role: Role = Role.OPERATOR
    scope: Scope = Scope.FULL
    key_sha256: KeyHash


def find_key(presented: str, keys: Iterable[ApiKey]) -> ApiKey | None:
    """The key that `presented` is, compared in constant time; None when it is none of them."""
    presented_hash = hash_key(presented)
    found = None
    for key in keys:
        if hmac.compare_digest(key.key_sha256, presented_hash):
            found = key
    return found
