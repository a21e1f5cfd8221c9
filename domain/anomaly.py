"""What a detector reports: the anomaly as it is posted, as it is kept, and how severe it is."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, field_validator, model_validator

from domain.base import Durable, Edge, Name, Rfc3339, Text, UtcDatetime, in_words, sha256_of


class Severity(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class SeverityBands(Durable):
    """Lowest score (0..1, inclusive) of each severity; below `medium` is low."""

    medium: float = 0.4
    high: float = 0.6
    critical: float = 0.8

    @model_validator(mode="after")
    def _ascending(self) -> "SeverityBands":
        if not 0 <= self.medium <= self.high <= self.critical <= 1:
            raise ValueError("must ascend within 0..1: medium, high, critical")
        return self

    def severity(self, score: float) -> Severity:
        if score >= self.critical:
            return Severity.CRITICAL
        if score >= self.high:
            return Severity.HIGH
        if score >= self.medium:
            return Severity.MEDIUM
        return Severity.LOW


def _not_reserved(value: str) -> str:
    if value.lower() == "manual":
        raise ValueError("may not be 'manual': that prefix names runs started by hand")
    return value


AnomalyId = Annotated[
    str,
    in_words(
        r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}",
        "must be 1 to 128 letters, digits and the characters . _ : -, of which the first is a letter or digit",
    ),
    AfterValidator(_not_reserved),
]
"""1 to 128 of letters, digits and `._:-`, first a letter or digit: it is a workflow id, a URL segment and a slash argument."""

Score = Annotated[float, Field(ge=0, le=1)]


class Anomaly(Durable):
    """One anomaly as the orchestrator keeps it; what is unknown is None or empty, never a placeholder."""

    anomaly_id: str
    service_id: str
    metric_name: str
    timestamp: UtcDatetime
    anomaly_score: float  # 0..1
    environment: str | None = None
    metric_value: float | None = None
    root_cause: str | None = None
    rca_confidence: float | None = None  # 0..1
    blast_radius: tuple[str, ...] = ()
    suggested_actions: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 of the content: tells a repeated post of one id from a different anomaly under the same id."""
        return sha256_of(self.model_dump(mode="json"))


_TEXT = TypeAdapter(Text)


class RootCauseReport(Edge):
    """The nested shape of a root cause that some senders use."""

    summary: Text
    suggested_actions: list[Text] = Field(default_factory=list[Text], max_length=50)
    confidence: Score | None = None
    blast_radius: list[Name] = Field(default_factory=list[Name], max_length=200)


class AnomalyReport(Edge):
    """The body of `POST /api/v1/anomalies`. Both shapes of a root cause are accepted: text, or an object."""

    anomaly_id: AnomalyId
    service_id: Name
    metric_name: Name
    timestamp: Rfc3339
    anomaly_score: Score
    environment: Name | None = None
    metric_value: float | None = None
    root_cause: Text | RootCauseReport | None = None
    rca_confidence: Score | None = None
    blast_radius: list[Name] = Field(default_factory=list[Name], max_length=200)
    suggested_actions: list[Text] = Field(default_factory=list[Text], max_length=50)

    @field_validator("root_cause", mode="before")
    @classmethod
    def _one_of_two_shapes(cls, value: object) -> object:
        """Choose the shape here: a union reports the faults of both, and only one was meant."""
        if isinstance(value, dict):
            return RootCauseReport.model_validate(value)
        if isinstance(value, str):
            return _TEXT.validate_python(value)
        if value is None or isinstance(value, RootCauseReport):
            return value
        raise ValueError("must be a text, or an object with `summary`")

    def to_anomaly(self) -> Anomaly:
        """Normalise: top-level keys win over those inside a `root_cause` object; empty texts count as absent."""
        cause = self.root_cause
        nested = cause if isinstance(cause, RootCauseReport) else None
        summary = nested.summary if nested else cause if isinstance(cause, str) else None
        confidence = self.rca_confidence
        if confidence is None and nested:
            confidence = nested.confidence
        blast_radius = self.blast_radius or (nested.blast_radius if nested else [])
        actions = self.suggested_actions or (nested.suggested_actions if nested else [])
        return Anomaly(
            anomaly_id=self.anomaly_id,
            service_id=self.service_id,
            metric_name=self.metric_name,
            timestamp=self.timestamp,
            anomaly_score=_positive_zero(self.anomaly_score),
            environment=self.environment,
            metric_value=None if self.metric_value is None else _positive_zero(self.metric_value),
            root_cause=summary or None,
            rca_confidence=None if confidence is None else _positive_zero(confidence),
            blast_radius=tuple(blast_radius),
            suggested_actions=tuple(action for action in actions if action),
        )


def _positive_zero(value: float) -> float:
    """-0.0 is 0.0, but JSON writes them differently: equal content must have one digest."""
    return value + 0.0
