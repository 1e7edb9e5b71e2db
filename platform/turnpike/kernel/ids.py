"""Prefixed, sortable ids: ten_, apikey_, req_, inv_.

Inside, an id is a UUIDv7 (RFC 9562); outside it is written as prefix, ``01`` and 22 base58
characters, of fixed width, so that text sorts by time as the UUID does.
"""

import hashlib
import os
import random
from datetime import datetime
from uuid import UUID

from turnpike.kernel import clock

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
VERSION = "01"
ENCODED_LENGTH = 22

TENANT = "ten"
WORKSPACE = "wrkspc"
API_KEY = "apikey"
USER = "user"
INVITE = "invite"
REQUEST = "req"
BATCH = "msgbatch"
INVOICE = "inv"

# Version 7 and the variant of RFC 9562; all other bits are time and randomness.
_FIXED_BITS = 0x7000 << 64 | 0x8000000000000000
_FREE_BITS = (1 << 128) - 1 ^ (0xF000 << 64 | 0xC000000000000000)
_FOUR, _EIGHT, _TWELVE = 58**4, 58**8, 58**12
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_VALUES = {character: value for value, character in enumerate(ALPHABET)}

# Ids of requests are no secrets, and a system call for each costs ten times as much. A generator of
# their own, which nobody else seeds, and which a child process seeds anew.
_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)


def uuid7(*, at_ms: int | None = None) -> UUID:
    """A new UUIDv7: 48 bits of milliseconds, 74 bits of randomness."""
    bits = int.from_bytes(os.urandom(10), "big")
    return UUID(int=_uuid7_number(clock.now_ms() if at_ms is None else at_ms, bits))


def new_request_id(at_ms: int) -> tuple[str, str]:
    """A new request's UUIDv7 as text, and its public id.

    The same as going through `uuid7`, at a third of the price: no UUID object is made, and nothing
    secret is asked for.
    """
    number = _uuid7_number(at_ms, _random.getrandbits(80))
    digits = number.to_bytes(16, "big").hex()
    text = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return text, _public_id(REQUEST, number)


def _uuid7_number(milliseconds: int, bits: int) -> int:
    return ((milliseconds & 0xFFFFFFFFFFFF) << 80 | bits) & _FREE_BITS | _FIXED_BITS


def derived_uuid7(origin: UUID, number: int) -> UUID:
    """The UUIDv7 of part `number` of something, at the same instant; the same at every call."""
    digest = hashlib.sha256(origin.bytes + number.to_bytes(8, "big")).digest()
    bits = int.from_bytes(digest[:10], "big")
    value = (origin.int >> 80) << 80
    value |= 0x7000 << 64 | (bits >> 68) << 64
    return UUID(int=value | 0x8000000000000000 | (bits & 0x3FFFFFFFFFFFFFFF))


def uuid7_floor(at: datetime) -> UUID:
    """The smallest UUIDv7-shaped value of an instant: a time filter written as a filter on ids."""
    return UUID(int=(clock.us_of_datetime(at) // 1_000) << 80)


def uuid7_ms(value: UUID) -> int:
    """The milliseconds since 1970 that a UUIDv7 carries."""
    return value.int >> 80


def public_id(prefix: str, value: UUID) -> str:
    """A UUID as people and programs see it, for example ``req_01`` and 22 characters."""
    return _public_id(prefix, value.int)


def parse_public_id(prefix: str, text: str) -> UUID:
    """The UUID of a public id. Raises ValueError for another prefix or form."""
    head = f"{prefix}_{VERSION}"
    encoded = text.removeprefix(head)
    if not text.startswith(head) or len(encoded) != ENCODED_LENGTH:
        raise ValueError(f"Not an id of the form {head}…: {text[:40]!r}.")
    number = 0
    for character in encoded:
        if character not in _VALUES:
            raise ValueError(f"Not an id of the form {head}…: {text[:40]!r}.")
        number = number * 58 + _VALUES[character]
    if number >= 1 << 128:
        raise ValueError(f"Not an id of the form {head}…: {text[:40]!r}.")
    return UUID(int=number)


def _public_id(prefix: str, number: int) -> str:
    # Down to four digits at a time, which Python divides as a machine does, and of those two by a
    # look-up.
    pairs = _PAIRS
    high, low = divmod(number, _TWELVE)
    a, rest = divmod(high, _EIGHT)
    b, c = divmod(rest, _FOUR)
    d, rest = divmod(low, _EIGHT)
    e, f = divmod(rest, _FOUR)
    return (
        f"{prefix}_{VERSION}{pairs[a]}"
        f"{pairs[b // 3_364]}{pairs[b % 3_364]}{pairs[c // 3_364]}{pairs[c % 3_364]}"
        f"{pairs[d // 3_364]}{pairs[d % 3_364]}"
        f"{pairs[e // 3_364]}{pairs[e % 3_364]}{pairs[f // 3_364]}{pairs[f % 3_364]}"
    )
