"""Looking for a secret in whatever form it may have got out: plain, encoded, or inside something that is itself encoded."""

import base64
import binascii
import html
import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_LAYERS = 3
"""How deep texts in base64 are opened: a payload of a history is one layer."""


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
    """The forms of `secret` in `text`, and in every text that it holds in base64."""
    layers = [text]
    found: set[str] = set()
    for _ in range(_LAYERS + 1):
        for layer in layers:
            found |= {form.decode() for form in forms_of(secret) if form.decode() in layer}
        layers = [opened for layer in layers for opened in _opened(layer)]
    return sorted(found)


def leaks_in_files(folder: Path, secret: str) -> list[str]:
    """The files below `folder` that hold a form of `secret` in their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(form in path.read_bytes() for form in forms_of(secret))]


def _opened(text: str) -> list[str]:
    opened: list[str] = []
    for token in _BASE64.findall(text):
        try:
            content = base64.b64decode(token.replace("-", "+").replace("_", "/") + "=" * (-len(token) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        opened.append(content.decode("utf-8", "replace"))
    return opened
