"""A similar incident in words: the seed's line, the resolver's own verb, and nothing that was not said."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.memory import SHORT_FORM_CHARACTERS, SimilarIncident, historical_match, minutes_between, short_form

OCCURRED = datetime(2026, 3, 14, 9, 30, tzinfo=UTC)
APRIL = datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC)


def a_match(
    resolution: str = "Scaled from 3 to 5 pods.", minutes: float = 12, occurred_at: datetime = OCCURRED, at: datetime = APRIL
) -> str:
    similar = SimilarIncident(
        anomaly_id="anom-1", occurred_at=occurred_at, minutes_to_resolve=minutes, resolution=resolution, similarity=0.9
    )
    return historical_match(similar, at)


def test_the_line_is_the_seeds() -> None:
    resolution = "Scaled from 3 to 5 pods. Memory leak in v2.3.1 DB pool — upgrading to v2.3.2."
    assert a_match(resolution) == "Similar incident on March 14 — resolved in 12 min by scaling from 3 to 5 pods"
    assert a_match("Scaled") == "Similar incident on March 14 — resolved in 12 min by scaling"


@pytest.mark.parametrize(
    ("resolution", "done"),
    [
        ("Scaled from 3 to 5 pods. Memory leak in v2.3.1 DB pool.", "scaling from 3 to 5 pods"),
        ("Restarted payment-api", "restarting payment-api"),
        ("Rolled back to v2.3.0", "rolling back to v2.3.0"),
        ("Applied the patch of #4711", "applying the patch of #4711"),
        ("Stopped the batch job; told the team", "stopping the batch job"),
        ("Increased memory limit to 2Gi", "increasing memory limit to 2Gi"),
        ("Upgraded to v2.3.2, and watched it", "upgrading to v2.3.2"),
        ("Redeployed", "redeploying"),
        ("Re-deployed the app", "re-deploying the app"),
        ("Synced the clocks", "syncing the clocks"),
        ("Queued a rebuild", "queuing a rebuild"),
        ("Freed disk space on node-7", "freeing disk space on node-7"),
        ("Ran the migration by hand", "running the migration by hand"),
        ("Set replicas to 5", "setting replicas to 5"),
        ("Took node-7 out of the pool", "taking node-7 out of the pool"),
        ("Rebuilt the index", "rebuilding the index"),
        ("SCALED up", "scaling up"),
        ("Scaling from 3 to 5 pods", "scaling from 3 to 5 pods"),
        ("rolling back", "rolling back"),
        ("Failed over to the replica", "failing over to the replica"),
        ("Resolved by scaling to 5 pods", "scaling to 5 pods"),
        ("Scaled and restarted pods", "scaling"),
        ("Scaled from 3 to 5 pods and restarted the DB", "scaling from 3 to 5 pods"),
        ("Raised CPU and memory limits", "raising CPU and memory limits"),
        ("Scaled from 3\nto 5", "scaling from 3"),
        ("Scaled   from 3 to 5", "scaling from 3 to 5"),
        ("Expanded the volume — the disk was full", "expanding the volume"),
        ("Scaled to 5 (was 3)", "scaling to 5"),
        ("Raised the limit to 1.5 GiB. Done", "raising the limit to 1.5 GiB"),
    ],
)
def test_a_leading_verb_becomes_what_was_done(resolution: str, done: str) -> None:
    assert short_form(resolution) == done
    assert a_match(resolution).endswith(f"resolved in 12 min by {done}")


@pytest.mark.parametrize(
    "resolution",
    [
        "Connection pool exhausted by the nightly report",
        "We scaled pods",
        "Upgrade to v2.3.2",
        "Failed disk replaced",
        "Expired certificate renewed",
        "Cached credentials renewed",
        "Missing index added",
        "Need more replicas",
        "Speed of the disk was the problem",
        "String of errors ended",
        "Set of pods removed",
        "Hundred pods too many",
        "Fixed: the pool was too small",
        "Shed load",
        "🚑 Scaled",
        "1st scaled, 2nd restarted",
    ],
)
def test_what_does_not_begin_with_such_a_verb_is_quoted(resolution: str) -> None:
    assert short_form(resolution) is None
    said = a_match(resolution).removeprefix("Similar incident on March 14 — resolved in 12 min: ")
    assert (said[0], said[-1]) == ("“", "”")
    assert resolution.startswith(said[1:-1])


@pytest.mark.parametrize("resolution", ["", "   ", ".", "\n"])
def test_without_words_only_the_time_is_said(resolution: str) -> None:
    assert a_match(resolution) == "Similar incident on March 14 — resolved in 12 min"


def test_a_long_clause_is_cut_at_a_word() -> None:
    done = short_form("Scaled payment-api and all of its dependencies in every region that serves European customers")
    assert done == "scaling payment-api and all of its dependencies in every…"
    quoted = a_match("The connection pool of the reporting database had been exhausted by the nightly job of the other team")
    assert quoted.endswith(": “The connection pool of the reporting database had been…”")
    assert short_form("Scaled " + "x" * 200) == "scaling…"
    assert a_match("x" * 200).endswith(f": “{'x' * (SHORT_FORM_CHARACTERS - 1)}…”")


@given(st.text(max_size=400))
def test_no_word_is_invented(resolution: str) -> None:
    done = short_form(resolution)
    if done is not None:
        assert len(done) <= SHORT_FORM_CHARACTERS
        assert "\n" not in done
        first, _, rest = done.removesuffix("…").partition(" ")
        assert first.endswith("ing")
        assert rest in " ".join(resolution.split())


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (0, "under 1 min"),
        (0.99, "under 1 min"),
        (1, "1 min"),
        (12.4, "12 min"),
        (12.5, "13 min"),
        (120, "120 min"),
        (120.4, "120 min"),
        (121, "2 h 1 min"),
        (180, "3 h"),
        (185, "3 h 5 min"),
        (24 * 60 - 1, "23 h 59 min"),
        (24 * 60 - 0.4, "1 day"),
        (24 * 60, "1 day"),
        (25 * 60, "1 day 1 h"),
        (47.6 * 60, "2 days"),
        (30 * 24 * 60 + 61, "30 days 1 h"),
    ],
)
def test_a_duration_is_said_in_the_unit_people_use(minutes: float, said: str) -> None:
    assert f" — resolved in {said} by " in a_match(minutes=minutes)


@pytest.mark.parametrize(
    ("occurred_at", "said"),
    [
        (APRIL, "April 10"),
        (APRIL - timedelta(days=335), "May 10"),
        (APRIL - timedelta(days=336), "May 9, 2025"),
        (datetime(2025, 4, 10, tzinfo=UTC), "April 10, 2025"),
        (datetime(2027, 1, 2, tzinfo=UTC), "January 2, 2027"),
        (datetime.fromisoformat("2026-03-14T23:30:00-05:00"), "March 15"),
    ],
)
def test_the_year_is_said_where_it_is_not_plain(occurred_at: datetime, said: str) -> None:
    assert a_match(occurred_at=occurred_at).startswith(f"Similar incident on {said} — ")


def test_every_month_has_its_english_name() -> None:
    names = [a_match(occurred_at=datetime(2026, month, 1, tzinfo=UTC)).split()[3] for month in range(1, 13)]
    assert names[:3] == ["January", "February", "March"]
    assert len(set(names)) == 12


def test_minutes_are_never_negative() -> None:
    assert minutes_between(OCCURRED, OCCURRED + timedelta(seconds=90)) == 1.5
    assert minutes_between(OCCURRED, OCCURRED - timedelta(seconds=90)) == 0
