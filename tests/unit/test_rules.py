"""Which anomalies are alerted: score, services, and quiet hours that are right across midnight and DST."""

import zoneinfo
from datetime import UTC, date, datetime, time, timedelta
from time import process_time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.anomaly import Anomaly
from domain.rules import NotificationRules, QuietHours, is_zone

NIGHT = QuietHours.parse("23:00", "07:00", "America/New_York")
MINUTE = timedelta(minutes=1)


law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties on a shared machine: how long an example takes says nothing."""


def anomaly(score: float = 0.93, service: str = "payment-api") -> Anomaly:
    return Anomaly(
        anomaly_id="anom-7f3d",
        service_id=service,
        metric_name="cpu_usage_percent",
        timestamp=datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC),
        anomaly_score=score,
    )


def quiet_minutes(quiet: QuietHours, noon_of: date) -> int:
    """Count the minutes of real time that are quiet from noon of a day to noon of the next, on the wall clock of the zone."""
    zone = ZoneInfo(quiet.zone)
    begins = datetime.combine(noon_of, time(12), zone).astimezone(UTC)
    ends = datetime.combine(noon_of + timedelta(days=1), time(12), zone).astimezone(UTC)
    return sum(quiet.contain(begins + minute * MINUTE) for minute in range(int((ends - begins) / MINUTE)))


def dst_change(zone: str, evening: date) -> timedelta:
    """By how much the clock is put forward (positive) in the night after `evening`."""
    noons = (datetime.combine(day, time(12), ZoneInfo(zone)) for day in (evening, evening + timedelta(days=1)))
    before, after = (noon.utcoffset() or timedelta() for noon in noons)
    return after - before


@pytest.mark.parametrize(
    ("zone", "evening", "minutes"),
    [
        ("America/New_York", date(2026, 3, 6), 480),
        ("America/New_York", date(2026, 3, 7), 420),  # 8 March 2026, 02:00 → 03:00
        ("America/New_York", date(2026, 3, 8), 480),
        ("America/New_York", date(2026, 10, 31), 540),  # 1 November 2026, 02:00 → 01:00
        ("Europe/Berlin", date(2026, 3, 28), 420),
        ("Europe/Berlin", date(2026, 10, 24), 540),
        ("Australia/Lord_Howe", date(2026, 4, 4), 510),  # changes by 30 minutes
        ("Australia/Lord_Howe", date(2026, 10, 3), 450),
        ("Asia/Kolkata", date(2026, 3, 28), 480),
        ("UTC", date(2026, 10, 24), 480),
    ],
)
def test_a_night_is_as_long_as_the_clocks_make_it(zone: str, evening: date, minutes: int) -> None:
    assert quiet_minutes(QuietHours.parse("23:00", "07:00", zone), evening) == minutes


@settings(law, max_examples=40)
@given(
    st.sampled_from(["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "UTC", "Asia/Kolkata", "America/St_Johns"]),
    st.dates(date(2015, 1, 1), date(2037, 12, 1)),
)
def test_every_night_lasts_8_hours_less_what_the_clock_was_put_forward(zone: str, evening: date) -> None:
    expected = timedelta(hours=8) - dst_change(zone, evening)
    assert quiet_minutes(QuietHours.parse("23:00", "07:00", zone), evening) == expected / MINUTE


@pytest.mark.parametrize("year", range(2020, 2036))
def test_a_year_in_new_york_has_one_short_and_one_long_night(year: int) -> None:
    evenings = [date(year, 1, 1) + timedelta(days=day) for day in range(364)]
    changing = [evening for evening in evenings if dst_change("America/New_York", evening)]
    assert [quiet_minutes(NIGHT, evening) for evening in changing] == [420, 540]


def test_a_window_that_ignored_the_change_of_clocks_would_be_noticed() -> None:
    class InWinterTime(QuietHours):
        def contain(self, at: datetime) -> bool:
            winter = ZoneInfo(self.zone).utcoffset(datetime(2026, 1, 1)) or timedelta()
            wall = (at.astimezone(UTC) + winter).time()
            return wall >= self.start or wall < self.end

    wrong = InWinterTime(start=NIGHT.start, end=NIGHT.end, zone=NIGHT.zone)
    assert quiet_minutes(wrong, date(2026, 3, 6)) == 480
    assert [quiet_minutes(wrong, evening) for evening in (date(2026, 3, 7), date(2026, 10, 31))] == [480, 480]


clocks = st.times().map(lambda at: at.replace(second=0, microsecond=0))


@law
@given(clocks, clocks, clocks)
def test_a_minute_is_quiet_exactly_if_walking_from_the_start_meets_it_before_the_end(start: time, end: time, at: time) -> None:
    def minutes(clock: time) -> int:
        return clock.hour * 60 + clock.minute

    if start == end:
        return
    quiet = QuietHours.parse(f"{start:%H:%M}", f"{end:%H:%M}", "UTC")
    length = (minutes(end) - minutes(start)) % 1440
    assert quiet.contain(datetime.combine(date(2026, 4, 10), at, UTC)) == ((minutes(at) - minutes(start)) % 1440 < length)


@pytest.mark.parametrize(
    ("wall", "quiet"),
    [
        ("22:59:59.999999", False),
        ("23:00:00", True),
        ("00:00:00", True),
        ("06:59:59.999999", True),
        ("07:00:00", False),
        ("12:00:00", False),
    ],
)
def test_the_start_is_quiet_and_the_end_is_not(wall: str, quiet: bool) -> None:
    at = datetime.combine(date(2026, 7, 1), time.fromisoformat(wall), ZoneInfo("America/New_York"))
    assert NIGHT.contain(at.astimezone(UTC)) is quiet
    assert NIGHT.contain(at) is quiet


def test_a_window_within_a_day_does_not_reach_into_the_night() -> None:
    lunch = QuietHours.parse("12:00", "13:30", "Europe/Berlin")
    assert quiet_minutes(lunch, date(2026, 6, 1)) == 90
    assert not lunch.contain(datetime(2026, 6, 1, 1, 0, tzinfo=UTC))
    assert lunch.contain(datetime(2026, 6, 1, 10, 30, tzinfo=UTC))


def test_a_window_can_be_as_short_as_a_minute_and_as_long_as_all_others() -> None:
    assert quiet_minutes(QuietHours.parse("00:00", "00:01", "UTC"), date(2026, 6, 1)) == 1
    assert quiet_minutes(QuietHours.parse("00:01", "00:00", "UTC"), date(2026, 6, 1)) == 1439


def test_a_time_without_zone_is_no_instant() -> None:
    with pytest.raises(ValueError, match="without zone"):
        NIGHT.contain(datetime(2026, 7, 1, 23, 30))


@pytest.mark.parametrize(
    "clock", ["", "24:00", "7:00", "07:60", "0700", "07:00:00", "07:00 ", " 07:00", "７:00", "-1:00", "07:00\n", "7pm"]
)
def test_a_clock_that_is_not_hh_mm_is_refused_by_the_name_of_its_variable(clock: str) -> None:
    with pytest.raises(ValueError, match=r"^SLACK_QUIET_HOURS_START must be HH:MM between 00:00 and 23:59$"):
        QuietHours.parse(clock, "07:00", "UTC")
    with pytest.raises(ValueError, match=r"^SLACK_QUIET_HOURS_END must be HH:MM between 00:00 and 23:59$"):
        QuietHours.parse("23:00", clock, "UTC")


def test_a_window_without_length_is_refused_because_it_could_mean_never_or_always() -> None:
    with pytest.raises(ValueError, match="may not be equal"):
        QuietHours.parse("23:00", "23:00", "UTC")


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "America", "../../etc/passwd", "/etc/localtime", "EST5EDT\x00", "new york", "tzdata.zi", "\ud800"]
)
def test_a_zone_that_is_not_in_the_iana_database_is_refused(zone: str) -> None:
    assert not is_zone(zone)
    with pytest.raises(ValueError, match="SLACK_QUIET_HOURS_TZ must be an IANA zone"):
        QuietHours.parse("23:00", "07:00", zone)


def test_zones_are_known_without_the_database_of_the_system() -> None:
    paths = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    try:
        assert is_zone("Australia/Lord_Howe")
        assert quiet_minutes(NIGHT, date(2026, 3, 7)) == 420
    finally:
        zoneinfo.reset_tzpath(to=paths)
        ZoneInfo.clear_cache()


DAY = datetime(2026, 7, 1, 16, 0, tzinfo=UTC)
AT_NIGHT = datetime(2026, 7, 2, 4, 30, tzinfo=UTC)


def test_without_rules_everything_is_alerted() -> None:
    verdict = NotificationRules().judge(anomaly(score=0.0), AT_NIGHT)
    assert verdict.alert
    assert verdict.reason is None


@pytest.mark.parametrize(("score", "alert"), [(0.6, True), (0.5999999999, False), (0.0, False), (1.0, True)])
def test_the_lowest_score_is_inclusive(score: float, alert: bool) -> None:
    assert NotificationRules(min_score=0.6).judge(anomaly(score=score), DAY).alert is alert


@law
@given(st.floats(0, 1), st.floats(0, 1))
def test_the_reason_of_a_low_score_never_shows_two_equal_numbers(score: float, lowest: float) -> None:
    verdict = NotificationRules(min_score=lowest).judge(anomaly(score=score), DAY)
    assert verdict.alert is (score >= lowest)
    if not verdict.alert:
        assert verdict.reason == f"score {score} is below the minimum of {lowest}"
        assert str(score) != str(lowest)


@pytest.mark.parametrize(
    ("globs", "service", "alert"),
    [
        ((), "anything", True),
        (("payment-api",), "payment-api", True),
        (("payment-api",), "payment-api-2", False),
        (("payment-api",), "Payment-API", False),
        (("checkout", "payment-*"), "payment-api", True),
        (("payment-*",), "my-payment-api", False),
        (("auth-?",), "auth-1", True),
        (("auth-?",), "auth-", False),
        (("[ab]-api",), "b-api", True),
        (("[!ab]-api",), "b-api", False),
        (("*",), "anything", True),
        (("payment.api",), "paymentXapi", False),
    ],
)
def test_services_are_matched_whole_by_globs_and_case_matters(globs: tuple[str, ...], service: str, alert: bool) -> None:
    assert NotificationRules(services=globs).judge(anomaly(service=service), DAY).alert is alert


def test_a_glob_full_of_stars_is_answered_at_once() -> None:
    rules = NotificationRules(services=("*a" * 90 + "b",))
    started = process_time()
    assert not rules.judge(anomaly(service="a" * 200), DAY).alert
    assert process_time() - started < 1


@pytest.mark.parametrize(
    ("score", "service", "at", "reason"),
    [
        (0.5, "auth", AT_NIGHT, "score 0.5 is below the minimum of 0.6"),
        (0.6, "auth", AT_NIGHT, "service auth is not in the service filter"),
        (0.6, "payment-api", AT_NIGHT, "quiet hours 23:00–07:00 America/New_York"),
        (0.6, "payment-api", DAY, None),
    ],
)
def test_the_first_rule_that_objects_is_the_reason(score: float, service: str, at: datetime, reason: str | None) -> None:
    rules = NotificationRules(min_score=0.6, services=("payment-*",), quiet=NIGHT)
    verdict = rules.judge(anomaly(score, service), at)
    assert verdict.reason == reason
    assert verdict.alert is (reason is None)
