"""Notification rules: which anomalies are alerted. What is suppressed is recorded with its reason; its runbooks still run."""

import re
from datetime import datetime, time
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.anomaly import Anomaly
from domain.base import Durable
from domain.incident import Verdict

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\Z", re.ASCII)


class QuietHours(Durable):
    """A daily window on the wall clock of `zone`: start inclusive, end exclusive, possibly across midnight."""

    start: time
    end: time
    zone: str

    @classmethod
    def parse(cls, start: str, end: str, zone: str) -> "QuietHours":
        """From `HH:MM`, `HH:MM` and an IANA zone. Raises ValueError naming the variable and what is allowed."""
        begins, ends = _clock("SLACK_QUIET_HOURS_START", start), _clock("SLACK_QUIET_HOURS_END", end)
        if begins == ends:
            raise ValueError(
                "SLACK_QUIET_HOURS_START and SLACK_QUIET_HOURS_END may not be equal; leave both out to switch quiet hours off"
            )
        if not is_zone(zone):
            raise ValueError("SLACK_QUIET_HOURS_TZ must be an IANA zone such as America/New_York")
        return cls(start=begins, end=ends, zone=zone)

    def contain(self, at: datetime) -> bool:
        """Whether the instant `at` is quiet. The wall clock decides, so a night of DST change is shorter or longer by itself.

        Raises: ValueError for a time without zone, which Python would read in the zone of this machine.
        """
        if at.tzinfo is None:
            raise ValueError("quiet hours are asked about an instant, and a time without zone is none")
        wall = at.astimezone(ZoneInfo(self.zone)).time()
        if self.start < self.end:
            return self.start <= wall < self.end
        return wall >= self.start or wall < self.end

    def __str__(self) -> str:
        return f"{self.start:%H:%M}–{self.end:%H:%M} {self.zone}"


class NotificationRules(Durable):
    """Score, services and quiet hours, in that order; the first that objects gives the reason."""

    min_score: float = 0.0
    """Inclusive, 0..1."""
    services: tuple[str, ...] = ()
    """Globs; empty means all."""
    quiet: QuietHours | None = None

    def judge(self, anomaly: Anomaly, at: datetime) -> Verdict:
        """Whether to alert `anomaly` at the instant `at`."""
        if anomaly.anomaly_score < self.min_score:
            return Verdict(alert=False, reason=f"score {anomaly.anomaly_score} is below the minimum of {self.min_score}")
        if self.services and not any(fnmatchcase(anomaly.service_id, glob) for glob in self.services):
            return Verdict(alert=False, reason=f"service {anomaly.service_id} is not in the service filter")
        if self.quiet and self.quiet.contain(at):
            return Verdict(alert=False, reason=f"quiet hours {self.quiet}")
        return Verdict(alert=True)


def is_zone(name: str) -> bool:
    """Whether `name` is a zone of the IANA database; the `tzdata` wheel provides it where the system has none."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _clock(variable: str, text: str) -> time:
    match = _CLOCK.match(text)
    if not match:
        raise ValueError(f"{variable} must be HH:MM between 00:00 and 23:59")
    return time(int(match.group(1)), int(match.group(2)))
