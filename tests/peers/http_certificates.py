"""A certificate authority of a test's own, without any tool: Ed25519 (RFC 8032) and just enough X.509 (RFC 5280) in Python.

Made to meet OpenSSL's strict checks, which Python 3.13 switches on by default. Not fit for anything but tests.
"""

import base64
import hashlib
import secrets
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE_D = -121665 * pow(121666, -1, PRIME) % PRIME
BASE_Y = 4 * pow(5, -1, PRIME) % PRIME

Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z


def _even_x(y: int) -> int:
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    return x if x % 2 == 0 else PRIME - x


BASE: Point = (_even_x(BASE_Y), BASE_Y, 1, _even_x(BASE_Y) * BASE_Y % PRIME)


def _add(p: Point, q: Point) -> Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % PRIME
    b = (p[1] + p[0]) * (q[1] + q[0]) % PRIME
    c = 2 * p[3] * q[3] * CURVE_D % PRIME
    d = 2 * p[2] * q[2] % PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % PRIME, g * h % PRIME, f * g % PRIME, e * h % PRIME


def _times(scalar: int) -> bytes:
    """Return the base point times `scalar`, encoded in 32 bytes."""
    total: Point = (0, 1, 1, 0)
    power = BASE
    while scalar:
        if scalar & 1:
            total = _add(total, power)
        power = _add(power, power)
        scalar >>= 1
    inverse = pow(total[2], -1, PRIME)
    x, y = total[0] * inverse % PRIME, total[1] * inverse % PRIME
    return (y | (x & 1) << 255).to_bytes(32, "little")


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key pair."""

    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def _halves(self) -> tuple[int, bytes]:
        digest = hashlib.sha512(self.seed).digest()
        scalar = int.from_bytes(digest[:32], "little")
        return scalar & (2**254 - 8) | 2**254, digest[32:]

    @property
    def public(self) -> bytes:
        return _times(self._halves()[0])

    def sign(self, message: bytes) -> bytes:
        scalar, prefix = self._halves()
        nonce = _number(prefix + message)
        commitment = _times(nonce)
        challenge = _number(commitment + self.public + message)
        return commitment + ((nonce + challenge * scalar) % ORDER).to_bytes(32, "little")


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % ORDER


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, *parts)


def _extension(number: int, value: bytes, *, critical: bool = False) -> bytes:
    """One extension of the arc id-ce, 2.5.29.`number`."""
    return _sequence(_der(0x06, bytes([0x55, 0x1D, number])), _der(1, b"\xff") if critical else b"", _der(4, value))


ED25519 = _sequence(_der(0x06, bytes([0x2B, 0x65, 0x70])))  # 1.3.101.112


def _name(common_name: str) -> bytes:
    attribute = _sequence(_der(0x06, bytes([0x55, 0x04, 0x03])), _der(0x0C, common_name.encode()))
    return _sequence(_der(0x31, attribute))


def _time(moment: datetime) -> bytes:
    return _der(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def _pem(label: str, der: bytes) -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n"


def _alternative_name(name: str) -> bytes:
    try:
        return _der(0x87, ip_address(name).packed)
    except ValueError:
        return _der(0x82, name.encode())


class Authority:
    """Signs server certificates, and makes the TLS contexts of both sides."""

    def __init__(self) -> None:
        self._key = SigningKey()
        self._key_id = hashlib.sha256(self._key.public).digest()[:20]
        self.certificate = self._certificate(
            self._key,
            "test authority",
            _extension(19, _sequence(_der(1, b"\xff")), critical=True),  # basic constraints: an authority
            _extension(15, _der(3, b"\x02\x04"), critical=True),  # key usage: signs certificates
            _extension(14, _der(4, self._key_id)),
        )

    def trust(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority and no other."""
        context = ssl.create_default_context(cadata=self.certificate)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def serve(self, *names: str, on_server_name: Callable[[str | None], None] = lambda _: None) -> ssl.SSLContext:
        """Return a server's context with a certificate for the names and addresses; `on_server_name` hears each SNI."""
        key = SigningKey()
        certificate = self._certificate(
            key,
            names[0],
            _extension(17, _sequence(*map(_alternative_name, names))),
            _extension(35, _sequence(_der(0x80, self._key_id))),
            _extension(15, _der(3, b"\x07\x80"), critical=True),  # key usage: signs handshakes
        )
        wrapped = _sequence(_der(2, b"\x00"), ED25519, _der(4, _der(4, key.seed)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "server.pem"
            file.touch(0o600)
            file.write_text(_pem("PRIVATE KEY", wrapped) + certificate)
            context.load_cert_chain(file)

        def heard(_socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
            on_server_name(name)

        context.sni_callback = heard
        return context

    def _certificate(self, key: SigningKey, subject: str, *extensions: bytes) -> str:
        now = datetime.now(UTC)
        body = _sequence(
            _der(0xA0, _der(2, b"\x02")),
            _der(2, b"\x01" + secrets.token_bytes(8)),
            ED25519,
            _name("test authority"),
            _sequence(_time(now - timedelta(hours=1)), _time(now + timedelta(days=1))),
            _name(subject),
            _sequence(ED25519, _der(3, b"\x00", key.public)),
            _der(0xA3, _sequence(*extensions)),
        )
        return _pem("CERTIFICATE", _sequence(body, ED25519, _der(3, b"\x00", self._key.sign(body))))
