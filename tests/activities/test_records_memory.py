"""Which remembered incident an anomaly recalls: the same service and metric first, then alike causes, then the newest; or none."""

from datetime import timedelta
from typing import Any

import pytest

from activities.clients import clickhouse_memory as weights
from activities.clients.clickhouse import ClickHouse
from activities.clients.clickhouse_tables import CAUSE_KEY_CHARACTERS
from domain.memory import SimilarIncident
from tests.activities.records import CAUSE, NOON, a_memory, an_anomaly

ALIKE = "CPU saturated because the DB connection pool was exhausted"
UNLIKE = "TLS certificate expired on the ingress"
NOW = an_anomaly("anom-now", timestamp=NOON + timedelta(days=27))


async def remember(clickhouse: ClickHouse, anomaly_id: str, **overrides: Any) -> None:
    await clickhouse.remember(a_memory(an_anomaly(anomaly_id, **overrides)))


async def recalled(clickhouse: ClickHouse, **overrides: Any) -> str | None:
    found = await clickhouse.find_similar(NOW.model_copy(update=overrides))
    return found.anomaly_id if found else None


async def test_the_first_incident_ever_resembles_nothing(clickhouse: ClickHouse) -> None:
    assert await clickhouse.find_similar(NOW) is None


async def test_a_match_carries_what_the_alert_shows(clickhouse: ClickHouse) -> None:
    await remember(clickhouse, "anom-7f3d")
    assert await clickhouse.find_similar(NOW) == SimilarIncident(
        anomaly_id="anom-7f3d",
        occurred_at=NOON,
        minutes_to_resolve=12,
        resolution="Scaled from 3 to 5 pods. Memory leak in v2.3.1 DB pool — upgrading to v2.3.2.",
        similarity=1.0,
    )


async def test_an_anomaly_never_recalls_itself(clickhouse: ClickHouse) -> None:
    await remember(clickhouse, NOW.anomaly_id)
    assert await recalled(clickhouse) is None
    await remember(clickhouse, "anom-other", root_cause=UNLIKE)
    assert await recalled(clickhouse) == "anom-other"


async def test_an_unrelated_service_with_an_unrelated_cause_is_not_recalled(clickhouse: ClickHouse) -> None:
    await remember(clickhouse, "anom-1", service_id="search-api", metric_name="error_rate", root_cause=UNLIKE)
    await remember(clickhouse, "anom-2", service_id="search-api", root_cause=UNLIKE)
    assert await recalled(clickhouse) is None


async def test_service_and_metric_come_before_the_service_and_that_before_the_others(clickhouse: ClickHouse) -> None:
    """Each of the three is similar by itself; the nearer one wins although its cause is less alike and it is older."""
    kinds = {
        "elsewhere": {"service_id": "checkout-api", "root_cause": CAUSE, "timestamp": NOON},
        "same-service": {"metric_name": "p99_latency_ms", "root_cause": ALIKE, "timestamp": NOON - timedelta(days=1)},
        "same-metric-too": {"root_cause": UNLIKE, "timestamp": NOON - timedelta(days=2)},
    }
    for anomaly_id, overrides in kinds.items():
        await remember(clickhouse, anomaly_id, **overrides)
        assert await recalled(clickhouse) == anomaly_id


async def test_among_incidents_of_one_service_and_metric_the_cause_that_is_most_alike_wins(clickhouse: ClickHouse) -> None:
    await remember(clickhouse, "alike", root_cause=ALIKE, timestamp=NOON - timedelta(days=300))
    for number, cause in enumerate((UNLIKE, None, "Disk full on node-7", "CPU throttled by its limit")):
        await remember(clickhouse, f"other-{number}", root_cause=cause)
    assert await recalled(clickhouse) == "alike"
    await remember(clickhouse, "same-words", root_cause=CAUSE.upper(), timestamp=NOON - timedelta(days=600))
    assert await recalled(clickhouse) == "same-words"


async def test_the_newest_of_equals_wins_in_whatever_order_they_were_remembered(clickhouse: ClickHouse) -> None:
    for days in (3, 1, 2):
        await remember(clickhouse, f"days-ago-{days}", timestamp=NOON - timedelta(days=days))
    assert await recalled(clickhouse) == "days-ago-1"


async def test_without_a_known_cause_the_newest_of_the_same_service_and_metric_is_recalled(clickhouse: ClickHouse) -> None:
    await remember(clickhouse, "older", root_cause=CAUSE, timestamp=NOON - timedelta(days=1))
    await remember(clickhouse, "newer", root_cause=None)
    await remember(clickhouse, "elsewhere", service_id="checkout-api", root_cause=None, timestamp=NOON + timedelta(days=1))
    await remember(clickhouse, "other-metric", metric_name="error_rate", root_cause=None, timestamp=NOON + timedelta(days=1))
    assert await recalled(clickhouse, root_cause=None) == "newer"
    assert await recalled(clickhouse, root_cause=None, service_id="search-api") is None


@pytest.mark.parametrize(
    ("cause", "metric", "is_recalled"),
    [(ALIKE, "p99_latency_ms", True), (UNLIKE, "p99_latency_ms", False), (UNLIKE, "cpu_usage_cores", False)],
)
async def test_another_metric_of_the_service_needs_an_alike_cause(
    clickhouse: ClickHouse, cause: str, metric: str, is_recalled: bool
) -> None:
    await remember(clickhouse, "anom-1", metric_name=metric, root_cause=cause)
    assert await recalled(clickhouse) == ("anom-1" if is_recalled else None)


@pytest.mark.parametrize(
    ("cause", "metric", "is_recalled"),
    [
        (CAUSE, "cpu_usage_percent", True),
        ("CPU saturation from DB connection pool exhaustion after a deploy.", "cpu_usage_percent", True),
        ("CPU saturation from a runaway regular expression.", "cpu_usage_percent", False),
        (CAUSE, "error_rate", False),
    ],
)
async def test_another_service_needs_the_same_metric_and_much_the_same_cause(
    clickhouse: ClickHouse, cause: str, metric: str, is_recalled: bool
) -> None:
    await remember(clickhouse, "anom-1", service_id="checkout-api", metric_name=metric, root_cause=cause)
    assert await recalled(clickhouse) == ("anom-1" if is_recalled else None)


async def test_a_long_cause_is_compared_by_its_beginning(clickhouse: ClickHouse) -> None:
    beginning = (CAUSE + " ") * (CAUSE_KEY_CHARACTERS // len(CAUSE))
    await remember(clickhouse, "anom-1", service_id="checkout-api", root_cause=beginning + UNLIKE * 100)
    assert await recalled(clickhouse, root_cause=beginning + "something else entirely, at length. " * 100) == "anom-1"


async def test_layout_and_capitals_make_no_difference(clickhouse: ClickHouse) -> None:
    await remember(clickhouse, "anom-1", root_cause="  CPU\n saturation from\tDB connection pool EXHAUSTION.")
    found = await clickhouse.find_similar(NOW)
    assert found is not None
    assert found.similarity == 1.0


def test_the_weights_mean_what_their_docstring_says() -> None:
    service, metric, cause, metric_text = (
        weights.SERVICE_WEIGHT,
        weights.METRIC_WEIGHT,
        weights.CAUSE_TEXT_WEIGHT,
        weights.METRIC_TEXT_WEIGHT,
    )
    assert service + metric + cause + metric_text == pytest.approx(1)
    assert service + metric + metric_text > weights.THRESHOLD, "same service and metric: always"
    assert service + cause >= weights.THRESHOLD, "same service: with the same cause, whatever the metric"
    assert metric + metric_text + cause >= weights.THRESHOLD, "other service: with the same metric and cause"
    assert cause + metric_text <= weights.THRESHOLD, "other service and metric: never"
