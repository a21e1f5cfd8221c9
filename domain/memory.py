"""Incident memory: what is remembered of a resolved incident, and how a similar one is recalled, in data and in words."""

import math
import re
from datetime import datetime, timedelta

from domain.anomaly import Anomaly
from domain.base import Durable, UtcDatetime


class RememberedIncident(Durable):
    """One row of `infrasage_incident_memory`."""

    anomaly: Anomaly
    resolution: str
    resolved_by: str
    resolved_at: UtcDatetime
    minutes_to_resolve: float
    """From the anomaly's timestamp to the resolution; never negative."""
    runbook_outcomes: dict[str, str]
    """Runbook name → status word of its run."""


class SimilarIncident(Durable):
    """The best match above the threshold, as the alert shows it."""

    anomaly_id: str
    occurred_at: UtcDatetime
    minutes_to_resolve: float
    resolution: str
    similarity: float  # 0..1


def minutes_between(began_at: datetime, ended_at: datetime) -> float:
    """Minutes from one instant to another, 0 when the clocks of two machines say that it ended before it began."""
    return max(0.0, (ended_at - began_at) / timedelta(minutes=1))


# --- in words -----------------------------------------------------------------------------------------------------

SHORT_FORM_CHARACTERS = 60
YEAR_UNSAID = timedelta(days=335)
"""About 11 months: for so long, a day and a month can be meant of one year only."""
MINUTES_UP_TO = 120
"""Longer than this is said in hours, and from a day on in days."""

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def historical_match(similar: SimilarIncident, at: datetime) -> str:
    """Say it in one line, seen from the instant `at`: `Similar incident on March 14 — resolved in 12 min by scaling`.

    How it was resolved is the resolver's own words, shortened: after `by` when they begin with what was done, else quoted.
    """
    line = f"Similar incident on {_day(similar.occurred_at, at)} — resolved in {_duration(similar.minutes_to_resolve)}"
    done = short_form(similar.resolution)
    if done is not None:
        return f"{line} by {done}"
    clause = _clip(_first_clause(similar.resolution))
    return f"{line}: “{clause}”" if clause else line


def short_form(resolution: str) -> str | None:
    """The first clause as what was done: `Scaled from 3 to 5 pods. Memory leak …` → `scaling from 3 to 5 pods`.

    Returns: None when the text does not begin with a verb in the past tense or in its -ing form. Nothing is added to the text.
    """
    clause = _RESOLVED_BY.sub("", _first_clause(resolution))
    verb, _, rest = clause.partition(" ")
    doing = _gerund(verb, rest)
    rest = _without_second_verb(rest)
    if doing is None or _is_about_what_was_done_to_it(rest):
        return None
    return _clip(f"{doing} {rest}".strip())


_CLAUSE_ENDS = re.compile(r"[.!?;,](?=\s|\Z)|\s[—–-]+\s|\n|\s\(|\s(?:and then|then)\s")
_DANGLING = re.compile(r"\s(?:and|but|or)\Z")
_RESOLVED_BY = re.compile(r"\A(?:resolved|fixed|mitigated|solved|restored) by (?=\w+ing\b)", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")

_IRREGULAR = {
    "agreed": "agreeing",
    "broke": "breaking",
    "brought": "bringing",
    "built": "building",
    "cut": "cutting",
    "did": "doing",
    "drove": "driving",
    "fed": "feeding",
    "found": "finding",
    "freed": "freeing",
    "froze": "freezing",
    "gave": "giving",
    "got": "getting",
    "held": "holding",
    "kept": "keeping",
    "let": "letting",
    "made": "making",
    "put": "putting",
    "ran": "running",
    "rebuilt": "rebuilding",
    "redid": "redoing",
    "reran": "rerunning",
    "reset": "resetting",
    "rewrote": "rewriting",
    "sent": "sending",
    "set": "setting",
    "shrank": "shrinking",
    "shut": "shutting",
    "sped": "speeding",
    "split": "splitting",
    "spun": "spinning",
    "swept": "sweeping",
    "threw": "throwing",
    "took": "taking",
    "undid": "undoing",
    "went": "going",
    "withdrew": "withdrawing",
    "wrote": "writing",
}

_NOT_VERBS = frozenset(
    {
        # in -ed: more often what something was than what was done
        *("affected", "biased", "corrupted", "crashed", "damaged", "expired", "failed", "hundred", "leaked", "misconfigured"),
        *("naked", "overloaded", "sacred", "saturated", "unexpected", "unused"),
        # in -ing: nouns and prepositions, or what something was doing
        *("anything", "building", "ceiling", "crashing", "during", "evening", "everything", "failing", "following", "leaking"),
        *("missing", "morning", "nothing", "pending", "regarding", "something", "warning"),
    }
)
_VERBS_WITH_A_PARTICLE = frozenset({"failed over", "failing over", "failed back", "failing back"})


def _gerund(word: str, rest: str) -> str | None:
    """`Scaled` → `scaling`, `Applied` → `applying`, `Ran` → `running`; None when it is not such a verb."""
    verb = word.lower()
    if not _WORD.fullmatch(verb) or rest.startswith("of "):
        return None
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb in _NOT_VERBS and f"{verb} {rest.partition(' ')[0]}" not in _VERBS_WITH_A_PARTICLE:
        return None
    if verb.endswith("ing") and _has_vowel(verb[:-3]):
        return verb
    if verb.endswith("ied"):
        return f"{verb[:-3]}ying"
    if verb.endswith("ed") and not verb.endswith("eed") and _has_vowel(verb[:-2]):
        return f"{verb[:-2]}ing"
    return None


def _has_vowel(stem: str) -> bool:
    """Tells verbs from words that only end like one: `string`, `bed`, `shed`."""
    return any(letter in "aeiouy" for letter in stem)


def _without_second_verb(rest: str) -> str:
    """`and restarted them` would need its own -ing; it is left out."""
    parts = re.split(r"(?:\A|\s)and\s", rest)
    for count, part in enumerate(parts[1:], start=1):
        word, _, after = part.partition(" ")
        if not word.endswith("ing") and _gerund(word, after):
            return " and ".join(parts[:count]).strip()
    return rest


def _is_about_what_was_done_to_it(rest: str) -> bool:
    """`Cached credentials renewed`: the verb is at the end, and the first word only tells which credentials."""
    last = rest.rpartition(" ")[2].lower()
    return last.endswith("ed") and _has_vowel(last[:-2]) and not last.endswith("eed")


def _first_clause(text: str) -> str:
    clause = " ".join(_CLAUSE_ENDS.split(text.strip(), maxsplit=1)[0].split())
    return _DANGLING.sub("", clause)


def _clip(text: str) -> str:
    """Shorten to `SHORT_FORM_CHARACTERS` at a word, with an ellipsis."""
    if len(text) <= SHORT_FORM_CHARACTERS:
        return text
    kept = text[: SHORT_FORM_CHARACTERS - 1]
    whole_words = kept.rpartition(" ")[0] if text[len(kept)] != " " else kept
    return f"{(whole_words or kept).rstrip()}…"


def _day(occurred_at: datetime, at: datetime) -> str:
    """The date in UTC, with the year where it is not plain."""
    day = f"{_MONTHS[occurred_at.month - 1]} {occurred_at.day}"
    is_recent = timedelta(0) <= at - occurred_at <= YEAR_UNSAID
    return day if is_recent else f"{day}, {occurred_at.year}"


def _duration(minutes: float) -> str:
    """`under 1 min`, `12 min`, `3 h 5 min`, `2 days 4 h`; halves are rounded up, what is zero is left out."""
    if minutes < 1:
        return "under 1 min"
    total = math.floor(minutes + 0.5)
    if total <= MINUTES_UP_TO:
        return f"{total} min"
    hours, rest = divmod(total, 60)
    if hours < 24:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, hours = divmod(math.floor(minutes / 60 + 0.5), 24)
    shown = "1 day" if days == 1 else f"{days} days"
    return f"{shown} {hours} h" if hours else shown
