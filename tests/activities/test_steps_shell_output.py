"""What is kept of a command's output: two ends, cleaned, and no part of a secret."""

import pytest

from activities.clients.ssh_messages import CAPTURE_PART_BYTES, Capture
from activities.secrets import Secrets
from activities.steps import shell_output
from activities.steps.shell_output import SHOWN_CHARACTERS, last_words, shown

SECRETS = Secrets({"API_TOKEN": "hunter2-value"})


def captured(*pieces: bytes) -> Capture:
    capture = Capture()
    for piece in pieces:
        capture.add(piece)
    return capture


def as_shown(data: bytes) -> str:
    return shown(captured(data), SECRETS.redact)


@pytest.mark.parametrize("size", [0, 1, CAPTURE_PART_BYTES - 1, CAPTURE_PART_BYTES, 2 * CAPTURE_PART_BYTES])
@pytest.mark.parametrize("piece_bytes", [1, 1_000, 100_000])
def test_a_capture_that_is_not_full_holds_everything(size: int, piece_bytes: int) -> None:
    data = bytes(at % 251 for at in range(size))
    capture = captured(*(data[at : at + piece_bytes] for at in range(0, size, piece_bytes)))
    assert capture.head + capture.tail == data
    assert capture.dropped_bytes == 0


@pytest.mark.parametrize("piece_bytes", [1, 1_000, 100_000])
def test_a_capture_holds_the_first_and_the_last_of_more(piece_bytes: int) -> None:
    data = bytes(at % 251 for at in range(100_000))
    capture = captured(*(data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)))
    assert capture.head == data[:CAPTURE_PART_BYTES]
    assert capture.tail == data[-CAPTURE_PART_BYTES:]
    assert capture.dropped_bytes == len(data) - 2 * CAPTURE_PART_BYTES


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"", ""),
        (b"plain\n", "plain"),
        (b"a\r\nb\rc\n\n", "a\nb\nc"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text\x1b]0;t\x1b\\", "text"),
        (b"\x1bc\x1b(Btext", "text"),
        (b"a\x00b\x07c\x08d\x9be", "abcd\ufffde"),
        ("a\u202eb\u200bc\ufeffd".encode(), "abcd"),
        ("ö 日本 😀\tt".encode(), "ö 日本 😀\tt"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_what_was_written_is_kept_as_text_that_can_be_shown(written: bytes, kept: str) -> None:
    assert as_shown(written) == kept


def test_long_output_is_kept_at_its_ends_with_a_mark_between() -> None:
    for data in (b"a" * 5_000, b"a" * 500_000):
        text = as_shown(b"begin" + data + b"end")
        head, tail = text.split("\n[… cut here …]\n")
        assert (len(head), len(tail)) == (SHOWN_CHARACTERS, SHOWN_CHARACTERS)
        assert head.startswith("begina")
        assert tail.endswith("aend")


@pytest.mark.parametrize("written", [b"hunter2-value", b"hunter2\x1b[0m-value", b"hunter2-\x00value", b"hunter2%2dvalue"])
def test_a_secret_is_redacted_however_it_was_coloured(written: bytes) -> None:
    assert as_shown(b"a " + written + b" b") == "a $API_TOKEN b"
    assert last_words(captured(b"a " + written + b" b"), SECRETS.redact, 100) == "a $API_TOKEN b"


@pytest.mark.parametrize("offset", range(14))
def test_a_secret_that_the_capture_cuts_in_two_leaves_no_part(offset: int) -> None:
    """At either cut, and where redaction shortens everything else, so that the cut moves into what is shown."""
    for filler in (b".", b"hunter2-value "):
        begin = (filler * CAPTURE_PART_BYTES)[: CAPTURE_PART_BYTES - offset]
        end = (filler * CAPTURE_PART_BYTES)[-(CAPTURE_PART_BYTES - offset) :] if offset < CAPTURE_PART_BYTES else b""
        capture = captured(begin, b"hunter2-value", b"x" * 100_000, b"hunter2-value", end)
        for text in (shown(capture, SECRETS.redact), last_words(capture, SECRETS.redact, 10_000)):
            assert "hunter2" not in text.replace("$API_TOKEN", "")
            assert "value" not in text


def test_the_control_without_the_margin_a_part_would_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "".join(f"{number:03}" for number in range(400))
    redact, capture = Secrets({"KEY": key}).redact, captured(key.encode() * 100)
    assert "000001" not in shown(capture, redact)
    monkeypatch.setattr(shell_output, "CUT_MARGIN_BYTES", 0)
    assert "000001" in shown(capture, redact)


def test_output_in_letters_of_several_bytes_is_kept_too() -> None:
    head, tail = as_shown("日".encode() * 100_000).split("\n[… cut here …]\n")
    assert min(len(head), len(tail)) > 500
    assert set(head + tail) == {"日"}


def test_the_last_words_are_one_line() -> None:
    assert last_words(captured(b"first\n\n  second\tthird\n"), SECRETS.redact, 100) == "first second third"
    assert last_words(captured(b"0123456789"), SECRETS.redact, 5) == "…6789"
    assert last_words(captured(b"a" * 100_000 + b" end"), SECRETS.redact, 6) == "…a end"
    assert last_words(captured(b" \n"), SECRETS.redact, 5) == ""
