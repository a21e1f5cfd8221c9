"""Everything that can be configured, read from the environment or `.env`; a wrong value is one sentence that names the variable."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain.access import ApiKey
from domain.anomaly import SeverityBands
from domain.incident import SlackMode
from domain.rules import NotificationRules, QuietHours

CommaList = Annotated[tuple[str, ...], NoDecode]


class SettingsError(ValueError):
    """One sentence a fault, each naming the variable and what is allowed."""


class Settings(BaseSettings):
    """Field names are the variables in lower case; the defaults are in the README's table of settings."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    slack_webhook_url: SecretStr | None = None
    slack_channel: str | None = None
    slack_bot_token: SecretStr | None = None
    slack_signing_secret: SecretStr | None = None
    slack_api_url: str = "https://slack.com/api/"
    slack_min_anomaly_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    slack_service_filter: CommaList = ()
    slack_quiet_hours_start: str | None = None
    slack_quiet_hours_end: str | None = None
    slack_quiet_hours_tz: str = "UTC"

    severity_bands: SeverityBands = SeverityBands()
    """JSON: lowest score of `medium`, `high` and `critical`."""

    clickhouse_host: str | None = None
    clickhouse_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_database: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")] = "default"
    clickhouse_tls_enabled: bool = False
    clickhouse_tls_ca_cert: Path | None = None

    infrasage_url: str = "http://localhost:9093"
    infrasage_api_keys: tuple[ApiKey, ...] = ()
    incident_max_open_days: Annotated[float, Field(gt=0, le=365)] = 30
    incident_recovered_close_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 24

    runbooks_dir: Path = Path("runbooks")
    runbook_secrets: CommaList = ()
    runbook_shell_hosts: Path | None = None
    runbook_http_allow: CommaList = ()
    kubeconfig: Path | None = None

    @field_validator("slack_service_filter", "runbook_secrets", "runbook_http_allow", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _bot_needs_its_secret(self) -> "Settings":
        if self.slack_bot_token and not (self.slack_signing_secret and self.slack_signing_secret.get_secret_value().strip()):
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
        raise SettingsError(" ".join(_sentence(item["loc"], item["msg"]) for item in error.errors())) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return f"{message}."
    inner = ".".join(str(part) for part in location[1:])
    return f"{str(location[0]).upper()}{f' ({inner})' if inner else ''}: {message}."
