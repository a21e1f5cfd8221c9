"""The look-up of the most similar incident: weights, threshold, and the queries that rank.

An incident is ranked first by what it was about (same service and metric, then same service, then same metric elsewhere), then by
how alike the texts are, then by age. Alikeness is the share of common 4-grams (`ngramDistance`): of sentences about one cause it is
about 0.4 to 0.7, of unrelated ones below 0.2. No model is needed, and the same texts always rank the same.

What the weights mean for the threshold:

    same service, same metric     always similar, 0.60 and more, whatever the cause
    same service, other metric    causes must share about 0.3 of their 4-grams
    other service, same metric    causes must share about 0.65
    other service, other metric   never, so it is not even read

Every candidate is compared, which costs about 0.4 µs of CPU each (`bench/memory_lookup.py`); the sorting key leaves out the other
services. A prefilter by SimHash was tried: it missed up to half of the best matches and saved a third of the time.
"""

from typing import Any

from activities.clients.clickhouse_tables import cause_key
from domain.anomaly import Anomaly

SERVICE_WEIGHT = 0.35
METRIC_WEIGHT = 0.15
CAUSE_TEXT_WEIGHT = 0.40
METRIC_TEXT_WEIGHT = 0.10
THRESHOLD = 0.50
"""The weights add up to 1, so a similarity is 0..1, and 1 is the same thing again."""

_RANK = """
SELECT service_id, metric_name, anomaly_id,
    {service_weight:Float64} * (service_id = {service:String})
        + {metric_weight:Float64} * (metric_name = {metric:String})
        + {cause_text_weight:Float64} * if(cause_key = '' OR {cause:String} = '', 0, 1 - ngramDistance(cause_key, {cause:String}))
        + {metric_text_weight:Float64} * if(metric_name = {metric:String}, 1, 1 - ngramDistance(metric_name, {metric:String}))
        AS similarity
FROM infrasage_incident_memory
WHERE ?? AND anomaly_id != {anomaly:String}
ORDER BY metric_name = {metric:String} DESC, round(similarity, 2) DESC, occurred_at DESC, anomaly_id
LIMIT 1
"""

RANK_SAME_SERVICE = _RANK.replace("??", "service_id = {service:String}")
RANK_OTHER_SERVICES = _RANK.replace("??", "metric_name = {metric:String} AND service_id != {service:String}")
"""Asked only when the service itself has nothing similar. Neither needs `FINAL`: another resolution of an incident changes none of
the columns that ranking reads."""

RECALL = """
SELECT occurred_at, minutes_to_resolve, resolution
FROM infrasage_incident_memory FINAL
WHERE service_id = {service:String} AND metric_name = {metric:String} AND anomaly_id = {anomaly:String}
"""
"""Reads the match itself, by its sorting key."""


def rank_parameters(anomaly: Anomaly) -> dict[str, Any]:
    """The parameters of the ranking queries."""
    return {
        "service": anomaly.service_id,
        "metric": anomaly.metric_name,
        "anomaly": anomaly.anomaly_id,
        "cause": cause_key(anomaly.root_cause),
        "service_weight": SERVICE_WEIGHT,
        "metric_weight": METRIC_WEIGHT,
        "cause_text_weight": CAUSE_TEXT_WEIGHT,
        "metric_text_weight": METRIC_TEXT_WEIGHT,
    }
