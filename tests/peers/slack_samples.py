"""The anomaly and the approval of InfraSage's own page, as contents, for tests of what Slack shows."""

from datetime import UTC, datetime, timedelta

from domain.anomaly import Anomaly, Severity
from domain.approval import ApprovalRef
from domain.base import Actor, Source
from domain.memory import SimilarIncident
from domain.narration import Alert, ApprovalCard
from domain.plan import Fact

CONSOLE = "http://localhost:9093"
JANE = Actor(id="U0JANE0001", name="Jane Doe", source=Source.SLACK)


def sample_alert() -> Alert:
    return Alert(
        anomaly=Anomaly(
            anomaly_id="anom-7f3d",
            service_id="payment-api",
            metric_name="cpu_usage_percent",
            timestamp=datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC),
            anomaly_score=0.93,
            environment="production",
            metric_value=87.0,
            root_cause="CPU saturation from DB connection pool exhaustion.",
            rca_confidence=0.92,
            blast_radius=("user-service", "checkout-service"),
            suggested_actions=(
                "Scale payment-api to 5 pods",
                "Restart pods to clear memory pressure",
                "Review DB connection pool configuration",
            ),
        ),
        severity=Severity.CRITICAL,
        similar=SimilarIncident(
            anomaly_id="anom-5b20",
            occurred_at=datetime(2026, 3, 14, 9, 30, tzinfo=UTC),
            minutes_to_resolve=12,
            resolution="scaling",
            similarity=0.94,
        ),
    )


def sample_card() -> ApprovalCard:
    return ApprovalCard(
        workflow_id="anom-7f3d/scale-out-payment-api",
        incident_id="anom-7f3d",
        runbook="scale-out-payment-api",
        service_id="payment-api",
        environment="production",
        step=2,
        step_count=3,
        title="Scale deployment to 5 replicas",
        change="replicas 3 → 5",
        facts=(Fact(label="Namespace", value="production"),),
        ref=ApprovalRef(step=2, round=1, digest="ab" * 32),
        timeout=timedelta(minutes=10),
    )
