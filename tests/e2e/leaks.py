"""Looking for a secret in whatever form it may have got out: plain, encoded, or inside something that is itself encoded."""

import base64
import binascii
import html
import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}

_LAYERS = 3
"""How deep what is encoded is opened: a payload of a history is base64 of JSON, and may hold JSON again."""


def forms_of(secret: str) -> list[bytes]:
    """How the secret may be written. Of base64 there are three forms, by where in a group of 3 bytes it begins."""
    raw = secret.encode()
    plain = {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(json.dumps(secret))[3:-3],
        html.escape(secret),
        raw.hex(),
        raw.hex().upper(),
        secret[::-1],
        "".join(f"%{byte:02X}" for byte in raw),
    }
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw).decode()
        core = encoded[(8 * offset + 5) // 6 : 8 * (offset + len(raw)) // 6]
        plain |= {core, core.replace("+", "-").replace("/", "_")}
    return [form.encode() for form in sorted(plain)]


def leaks_in(text: str, secret: str) -> list[str]:
    """The forms of `secret` in `text`, and in every text that it holds in another encoding."""
    forms = [form.decode() for form in forms_of(secret)]
    layer, found = text, set[str]()
    for _ in range(_LAYERS + 1):
        found |= {form for form in forms if form in layer}
        layer = "\n".join([*_from_base64(layer), _from_json(layer), unquote(layer), html.unescape(layer)])
    return sorted(found)


def leaks_in_files(folder: Path, secret: str) -> list[str]:
    """The files below `folder` that hold a form of `secret` in their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(form in path.read_bytes() for form in forms_of(secret))]


def _from_base64(text: str) -> list[str]:
    opened: list[str] = []
    for token in _BASE64.findall(text):
        try:
            content = base64.b64decode(token.replace("-", "+").replace("_", "/") + "=" * (-len(token) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        opened.append(content.decode("utf-8", "replace"))
    return opened


def _from_json(text: str) -> str:
    return _ESCAPE.sub(lambda found: _letter(found.group(1)), text)


def _letter(escape: str) -> str:
    return chr(int(escape[1:], 16)) if len(escape) > 1 else _LETTERS.get(escape, escape)
