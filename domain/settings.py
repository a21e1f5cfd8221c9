"""Everything that can be configured, read from the environment or `.env`; a wrong value is one sentence that names the variable.

A sentence says what is allowed and never repeats what was given: it may be a secret in the wrong place. A field's `description`
completes "VARIABLE must be …".
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, SecretStr, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain.access import ApiKey
from domain.anomaly import SeverityBands
from domain.base import Glob
from domain.faults import place_of, reason_of
from domain.incident import SlackMode
from domain.paging import RoutingRule, one_secret
from domain.rules import NotificationRules, QuietHours, is_zone
from domain.service_settings import ServiceSettings
from domain.web_address import is_host, stays_private, web_address

CommaList = Annotated[tuple[str, ...], NoDecode]
Port = Annotated[int, Field(ge=1, le=65535)]

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_API_KEYS = TypeAdapter(tuple[ApiKey, ...])
_GLOB = TypeAdapter(Glob)
_ROUTING_RULES = TypeAdapter(tuple[RoutingRule, ...])


class SettingsError(ValueError):
    """One sentence a fault, each naming the variable and what is allowed."""


class Settings(ServiceSettings, BaseSettings):
    """Field names are the variables in lower case; the defaults are in the README's table of settings.

    A variable that is empty or blank counts as not set.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        str_strip_whitespace=True,
        hide_input_in_errors=True,
    )

    slack_webhook_url: SecretStr | None = None
    slack_channel: str | None = None
    slack_bot_token: SecretStr | None = None
    slack_signing_secret: SecretStr | None = None
    slack_api_url: str = "https://slack.com/api/"
    slack_min_anomaly_score: Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1")] = 0.0
    slack_service_filter: CommaList = ()
    slack_quiet_hours_start: str | None = None
    slack_quiet_hours_end: str | None = None
    slack_quiet_hours_tz: str = "UTC"

    severity_bands: Annotated[SeverityBands, NoDecode] = SeverityBands()
    """JSON: lowest score of `medium`, `high` and `critical`."""

    clickhouse_host: str | None = None
    clickhouse_port: Annotated[Port | None, Field(description="a port from 1 to 65535")] = None
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_database: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
            description="1 to 64 letters, digits and _, of which the first is a letter or _",
        ),
    ] = "default"
    clickhouse_tls_enabled: Annotated[bool, Field(description="true or false")] = False
    clickhouse_tls_ca_cert: Path | None = None

    infrasage_url: str = "http://localhost:9093"
    infrasage_api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = ()
    incident_max_open_days: Annotated[float, Field(gt=0, le=365, description="a number of days above 0, at most 365")] = 30
    incident_recovered_close_hours: Annotated[
        float, Field(gt=0, le=24 * 365, description="a number of hours above 0, at most 8760")
    ] = 24

    runbooks_dir: Path = Path("runbooks")
    runbook_secrets: CommaList = ()
    runbook_shell_hosts: Path | None = None
    runbook_http_allow: CommaList = ()
    kubeconfig: Path | None = None

    pagerduty_routing_rules: Annotated[tuple[RoutingRule, ...], NoDecode] = ()

    # Each narrows who may do what, or opens another way in. To ignore them would be to promise what is not kept.
    slack_app_token: SecretStr | None = Field(default=None, repr=False)
    infrasage_approvers: SecretStr | None = Field(default=None, repr=False)
    infrasage_roles: SecretStr | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_not_set(cls, values: Any) -> Any:
        given = cast("Mapping[str, Any]", values)
        return {name: value for name, value in given.items() if not (isinstance(value, str) and not value.strip())}

    @field_validator("slack_app_token", "infrasage_approvers", "infrasage_roles")
    @classmethod
    def _not_supported(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            raise ValueError("is not supported in this version and may not be set, because nothing would obey it")
        return value

    @field_validator("slack_service_filter", "runbook_secrets", "runbook_http_allow", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = tuple(part.strip() for part in value.split(",") if part.strip())
        if not parts:
            raise ValueError("must be a comma list with at least one entry")  # a lone comma does not mean "all"
        return parts

    @field_validator("slack_service_filter")
    @classmethod
    def _are_globs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, glob in enumerate(value, start=1):
            try:
                _GLOB.validate_python(glob)
            except ValidationError as error:
                raise ValueError(f"must be a comma list of service names or globs; entry {number}: {_first(error)}") from None
        return value

    @field_validator("runbook_secrets")
    @classmethod
    def _are_environment_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, name in enumerate(value, start=1):
            if not _ENVIRONMENT_NAME.fullmatch(name):
                raise ValueError(
                    "must be a comma list of names of environment variables, each of letters, digits and _ without $; "
                    f"entry {number} is none"
                )
        return value

    @field_validator("runbook_http_allow")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, entry in enumerate(value, start=1):
            if "://" in entry or not entry.isprintable() or " " in entry:
                raise ValueError(f"must be a comma list of host[:port] without scheme and path; entry {number} is none")
        return value

    @field_validator("slack_channel")
    @classmethod
    def _is_one_word(cls, value: str | None) -> str | None:
        if value is not None and (not value.isprintable() or " " in value):
            raise ValueError("must be the name of a channel, such as #ops-alerts, or its id")
        return value

    @field_validator("slack_bot_token", "slack_signing_secret")
    @classmethod
    def _is_one_secret(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else one_secret(value)

    @field_validator("slack_webhook_url")
    @classmethod
    def _is_a_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        address = web_address(value.get_secret_value())
        if not stays_private(address):
            raise ValueError("must be an https:// URL, or an http:// URL of this machine: whoever reads it can post to Slack")
        return SecretStr(address)

    @field_validator("infrasage_url")
    @classmethod
    def _is_a_base(cls, value: str) -> str:
        return web_address(value)

    @field_validator("slack_api_url")
    @classmethod
    def _is_an_api(cls, value: str) -> str:
        return web_address(value) + "/"

    @field_validator("clickhouse_host")
    @classmethod
    def _is_a_host(cls, value: str | None) -> str | None:
        if value is not None and not is_host(value):
            raise ValueError("must be a host name or address, without scheme and port (the port is CLICKHOUSE_PORT)")
        return value

    @field_validator("slack_quiet_hours_tz")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        if not is_zone(value):
            raise ValueError("must be an IANA zone such as America/New_York")
        return value

    @field_validator("severity_bands", mode="before")
    @classmethod
    def _read_bands(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return SeverityBands.model_validate_json(value, strict=True, extra="forbid")
        except ValidationError as error:
            raise ValueError(f'must be JSON such as {{"medium": 0.4, "high": 0.6, "critical": 0.8}}; {_first(error)}') from None

    @field_validator("infrasage_api_keys", mode="before")
    @classmethod
    def _read_keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            keys = _API_KEYS.validate_json(value, strict=True, extra="forbid")
        except ValidationError as error:
            raise ValueError(f"must be a JSON list of objects with name, role, scope and key_sha256; {_first(error)}") from None
        for number, key in enumerate(keys):
            # The defaults of ApiKey are for keys made here; a file that forgets the scope has not said "everything".
            for name in ("role", "scope"):
                if name not in key.model_fields_set:
                    raise ValueError(f"must say name, role, scope and key_sha256 of every key; [{number}] has no {name}")
        return keys

    @field_validator("pagerduty_routing_rules", mode="before")
    @classmethod
    def _read_routing_rules(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return _ROUTING_RULES.validate_json(value, strict=True, extra="forbid")
        except ValidationError as error:
            raise ValueError(f"must be a JSON list of objects with service_pattern and service_key; {_first(error)}") from None

    @field_validator("infrasage_api_keys")
    @classmethod
    def _keys_are_different(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        for what, values in (("name", [key.name.casefold() for key in keys]), ("key_sha256", [key.key_sha256 for key in keys])):
            if len(set(values)) < len(values):
                raise ValueError(f"may not have two keys of the same {what}")
        return keys

    @model_validator(mode="after")
    def _bot_needs_its_secret(self) -> "Settings":
        if self.slack_bot_token and not self.slack_signing_secret:
            raise ValueError("SLACK_SIGNING_SECRET must be set, and not be empty, when SLACK_BOT_TOKEN is")
        if self.slack_bot_token and not self.slack_channel:
            raise ValueError("SLACK_CHANNEL must name the channel of the alerts when SLACK_BOT_TOKEN is set")
        if (self.slack_quiet_hours_start is None) != (self.slack_quiet_hours_end is None):
            raise ValueError("SLACK_QUIET_HOURS_START and SLACK_QUIET_HOURS_END must be set together")
        _ = self.rules
        return self

    @property
    def slack_mode(self) -> SlackMode:
        if self.slack_bot_token:
            return SlackMode.BOT
        return SlackMode.WEBHOOK if self.slack_webhook_url else SlackMode.OFF

    @property
    def rules(self) -> NotificationRules:
        quiet = None
        if self.slack_quiet_hours_start is not None and self.slack_quiet_hours_end is not None:
            quiet = QuietHours.parse(self.slack_quiet_hours_start, self.slack_quiet_hours_end, self.slack_quiet_hours_tz)
        return NotificationRules(min_score=self.slack_min_anomaly_score, services=self.slack_service_filter, quiet=quiet)

    @property
    def max_open(self) -> timedelta:
        return timedelta(days=self.incident_max_open_days)

    @property
    def recovered_close(self) -> timedelta:
        return timedelta(hours=self.incident_recovered_close_hours)


def load_settings(**overrides: Any) -> Settings:
    """Read the environment. Raises SettingsError with one sentence a fault; values are never repeated, they may be secrets."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        sentences = [_sentence(item) for item in error.errors(include_input=False, include_url=False)]
    except (OSError, UnicodeDecodeError):
        sentences = ["The file .env must be readable and in UTF-8."]
    # Raised out here, so that the original with the values in it is not even the context of this one.
    raise SettingsError(" ".join(sentences))


def _sentence(error: ErrorDetails) -> str:
    if not error["loc"]:
        return f"{reason_of(error)}."
    name, *inner = error["loc"]
    field = Settings.model_fields.get(str(name))
    own_words = error["type"] == "value_error"
    reason = f"must be {field.description}" if field and field.description and not own_words else reason_of(error)
    return " ".join([str(name).upper(), *_where(inner), reason]) + "."


def _first(error: ValidationError) -> str:
    """The first fault, and where it is, of a value that holds others."""
    fault = error.errors(include_input=False, include_url=False)[0]
    return " ".join([*(_where(fault["loc"]) or ["it"]), reason_of(fault)])


def _where(inner: Sequence[int | str]) -> list[str]:
    return [place_of(inner)] if inner else []
