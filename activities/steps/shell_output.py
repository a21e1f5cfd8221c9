"""Make what a command wrote fit to be shown and kept: cleaned, without secrets, and short, in this order.

A capture may be cut in the middle of a secret, and half a secret is not recognised. So more is captured than is ever shown, and
what lies within `CUT_MARGIN_BYTES` of a cut is left out.
"""

import re
from collections.abc import Callable

from activities.clients.ssh_messages import Capture

SHOWN_CHARACTERS = 2_000
"""Of the beginning and of the end each, as it enters the history and the audit log."""

CUT_MARGIN_BYTES = 6 * 1024
"""Longer than a secret in any form that is looked for (`Secrets.redact`): a private key of RSA 4096 has 3,400 bytes."""

Redact = Callable[[str], str]

_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
"""Colours, cursor movements and titles (ECMA-48)."""

_LINE_END = re.compile(r"\r\n?")


def shown(capture: Capture, redact: Redact) -> str:
    """The first and the last `SHOWN_CHARACTERS` of what was written, and a mark where something was cut out between them.

    Line ends at the end are taken off, as a shell does with `$(…)`: a later step may use the text as an argument.
    """
    head, tail = _ends(capture, redact)
    if not capture.dropped_bytes and len(head) <= 2 * SHOWN_CHARACTERS:
        return head.rstrip("\n")
    return f"{head[:SHOWN_CHARACTERS]}\n[… cut here …]\n{tail[-SHOWN_CHARACTERS:]}".rstrip("\n")


def last_words(capture: Capture, redact: Redact, limit: int) -> str:
    """The last `limit` characters of what was written, on one line; "" when there is nothing."""
    _, tail = _ends(capture, redact)
    text = " ".join(tail.split())
    return text if len(text) <= limit else "…" + text[-(limit - 1) :]


def _ends(capture: Capture, redact: Redact) -> tuple[str, str]:
    """The two ends, cleaned and without secrets; the same text twice when nothing was dropped between them."""
    if not capture.dropped_bytes:
        whole = _fit(capture.head + capture.tail, redact)
        return whole, whole
    head, tail = _fit(capture.head, redact).encode(), _fit(capture.tail, redact).encode()
    return head[: max(0, len(head) - CUT_MARGIN_BYTES)].decode(errors="ignore"), tail[CUT_MARGIN_BYTES:].decode(errors="ignore")


def _fit(data: bytes, redact: Redact) -> str:
    text = redact(data.decode("utf-8", errors="replace"))
    plain = _LINE_END.sub("\n", _ESCAPE_SEQUENCE.sub("", text))
    # Once more: colours may have stood within a secret.
    return redact("".join(character for character in plain if character.isprintable() or character in "\n\t"))
