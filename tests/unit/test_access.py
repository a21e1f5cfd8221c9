"""Keys, scopes and the order of roles."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.access import ApiKey, Role, Scope, find_key, generate_key, hash_key

law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties on a shared machine: how long an example takes says nothing."""


def kept(key: str, name: str = "ops", role: Role = Role.OPERATOR, scope: Scope = Scope.FULL) -> ApiKey:
    return ApiKey(name=name, role=role, scope=scope, key_sha256=hash_key(key))


def test_a_fresh_key_has_the_prefix_and_256_bits_and_is_never_the_same() -> None:
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"isage_[A-Za-z0-9_-]{43}", key) for key in keys)


def test_a_key_is_hashed_with_sha_256() -> None:
    # The value for "abc" is in FIPS 180-2, appendix B.1.
    assert hash_key("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_right_key_is_found_among_others() -> None:
    mine, other = generate_key(), generate_key()
    keys = [kept(other, "other"), kept(mine, "mine"), kept(generate_key(), "third")]
    found = find_key(mine, keys)
    assert found is not None
    assert found.name == "mine"


@law
@given(st.text(max_size=60))
def test_nothing_else_is_found(presented: str) -> None:
    assert find_key(presented, [kept("isage_right")]) is None


@pytest.mark.parametrize(
    "presented", ["", " isage_right", "isage_right\n", "ISAGE_RIGHT", "isage_righ", "\ud800", "isage_right\x00"]
)
def test_a_key_that_only_resembles_the_right_one_is_not_found(presented: str) -> None:
    assert find_key(presented, [kept("isage_right")]) is None
    assert find_key("isage_right", [kept("isage_right")]) is not None


def test_the_hash_that_is_kept_is_not_a_key() -> None:
    key = generate_key()
    assert find_key(hash_key(key), [kept(key)]) is None


def test_without_keys_nobody_is_let_in() -> None:
    assert find_key("", []) is None
    assert find_key(generate_key(), []) is None


def test_the_hash_of_nothing_is_not_a_key() -> None:
    with pytest.raises(ValidationError, match="empty key"):
        kept("")


@pytest.mark.parametrize("value", ["", "a" * 63, "a" * 65, "g" * 64, "a" * 63 + "\n", "isage_in_clear", "ａ" * 64])
def test_what_is_no_hash_is_refused_in_words(value: str) -> None:
    with pytest.raises(ValidationError, match="64 hexadecimal digits"):
        ApiKey(name="ops", key_sha256=value)


def test_a_hash_may_be_written_in_capitals() -> None:
    key = generate_key()
    shouted = ApiKey(name="ops", key_sha256=hash_key(key).upper())
    assert find_key(key, [shouted]) == shouted


def test_each_role_includes_the_lower_ones_and_no_higher_one() -> None:
    included = {role: {other for other in Role if role.includes(other)} for role in Role}
    assert included == {
        Role.VIEWER: {Role.VIEWER},
        Role.OPERATOR: {Role.VIEWER, Role.OPERATOR},
        Role.ADMIN: {Role.VIEWER, Role.OPERATOR, Role.ADMIN},
    }


def test_the_words_of_roles_and_scopes_are_those_of_the_documentation() -> None:
    assert [role.value for role in Role] == ["viewer", "operator", "admin"]
    assert {scope.value for scope in Scope} == {"ingestion", "readonly", "full"}
