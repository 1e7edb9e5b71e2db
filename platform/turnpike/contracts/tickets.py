"""A ticket lets the control plane send one item of a message batch through the data plane.

The item was admitted with its batch: its price is held, and whoever sent it charges for it. So the
data plane only forwards it. A ticket is an HMAC under a key of both planes over what it is good
for: one body, one model, one request id, a few minutes. It opens nothing else and is no credential.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

HEADER = "x-turnpike-batch-item"
PURPOSE = b"turnpike batch item ticket v1"
SECONDS = 900
TICKET_LENGTH_MAX = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a ticket is good for."""

    rid: str
    model: str
    body_digest: str
    expires_at_us: int

    def is_of(self, body: bytes) -> bool:
        """Whether it is good for this very body."""
        return hmac.compare_digest(self.body_digest, digest_body(body))


def write_ticket(ticket: Ticket, *, peppers: Mapping[str, bytes]) -> str:
    """The header's value."""
    payload = base64.urlsafe_b64encode(json.dumps(asdict(ticket)).encode())
    return f"{payload.decode()}.{_mac(payload, next(iter(peppers.values())))}"


def read_ticket(text: str, *, peppers: Mapping[str, bytes], at_us: int) -> Ticket | None:
    """The ticket, if it is genuine and in time; else None. Whose body it is `is_of` tells."""
    if len(text) > TICKET_LENGTH_MAX or not text.isascii():
        return None
    payload, _, mac = text.partition(".")
    if not _is_genuine(payload.encode(), mac, peppers.values()):
        return None
    try:
        ticket = Ticket(**json.loads(base64.urlsafe_b64decode(payload)))
    except (ValueError, TypeError, binascii.Error):
        return None
    return ticket if at_us < ticket.expires_at_us else None


def digest_body(body: bytes) -> str:
    """What names a body in its ticket."""
    return hashlib.sha256(body).hexdigest()


def _is_genuine(payload: bytes, mac: str, peppers: Iterable[bytes]) -> bool:
    return any(hmac.compare_digest(_mac(payload, pepper), mac) for pepper in peppers)


def _mac(payload: bytes, pepper: bytes) -> str:
    key = hmac.digest(pepper, PURPOSE, "sha256")
    return hmac.digest(key, payload, "sha256").hex()
