"""What is said in the thread while runbooks run, and the reactions that show an alert's state."""

from activities.messages.foreign import paragraph
from activities.messages.parts import SECTION_LIMIT, SlackMessage, marked, message, prose
from domain.narration import AlertState, Note, Tone

_MARKS = {Tone.SUCCESS: "✅", Tone.WARNING: "⚠️", Tone.FAILURE: "❌"}

REACTIONS = {
    AlertState.WAITING: "hourglass_flowing_sand",
    AlertState.RUNNING: "gear",
    AlertState.RESOLVED: "white_check_mark",
    AlertState.FAILED: "x",
}
"""Emoji name of each state; all are standard names (github.com/iamcal/emoji-data), which every workspace has."""


def note_message(note: Note) -> SlackMessage:
    """Draw a note: its words, after the mark of its tone; a plain one has no mark."""
    text = paragraph(note.text, SECTION_LIMIT - 10) or "(no text)"
    mark = _MARKS.get(note.tone)
    return message([marked(mark, text) if mark else prose(text)])
