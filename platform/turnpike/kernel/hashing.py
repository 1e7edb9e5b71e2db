"""How an API key is hashed and compared; one recipe for both planes.

A key is a prefix, 36 random base62 characters (214 bits) and six characters of base62(CRC32 of what
precedes). The checksum lets both planes refuse garbage without a look-up. No slow hash: the key is
random, so guessing is hopeless, and a slow one would be a gift to an attacker.
"""

import hmac
import re
import secrets
import zlib
from collections.abc import Mapping

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
API_KEY_PREFIX = "tpk_live_"
MANAGEMENT_KEY_PREFIX = "tpm_live_"
PLAYGROUND_KEY_PREFIX = "tpp_live_"
RANDOM_LENGTH = 36
CHECKSUM_LENGTH = 6
SHOWN_HEAD, SHOWN_TAIL = 13, 4
PEPPER_BYTES_MIN = 32

_FORM = re.compile(r"tp[kmp]_live_[0-9A-Za-z]{42}")


def new_key(prefix: str) -> str:
    """A new secret key with the given prefix."""
    body = prefix + "".join(secrets.choice(BASE62) for _ in range(RANDOM_LENGTH))
    return body + _checksum(body)


def derive_key(prefix: str, *, pepper: bytes, name: str) -> str:
    """The same secret key for the same pepper and name, each time: one that nobody has to keep."""
    number = int.from_bytes(hmac.digest(pepper, f"derive\0{name}".encode(), "sha256"), "big")
    body = prefix + _base62(number % 62**RANDOM_LENGTH, length=RANDOM_LENGTH)
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether the text has a key's form and checksum; says nothing about its existence."""
    if _FORM.fullmatch(key) is None:
        return False
    return hmac.compare_digest(_checksum(key[:-CHECKSUM_LENGTH]), key[-CHECKSUM_LENGTH:])


def digest_key(key: str, *, pepper: bytes) -> str:
    """HMAC-SHA-256 of a key under a pepper, as 64 hex digits: what is stored and looked up."""
    return hmac.digest(pepper, key.encode(), "sha256").hex()


def digest_candidates(key: str, *, peppers: Mapping[str, bytes]) -> list[str]:
    """The digests that a key may be stored under, newest pepper first."""
    return [digest_key(key, pepper=pepper) for pepper in peppers.values()]


def parse_peppers(text: str) -> dict[str, bytes]:
    """Read ``id:secret,id:secret``, the newest first; the first one hashes new keys.

    Raises ValueError when one is malformed or shorter than 32 characters.
    """
    peppers: dict[str, bytes] = {}
    for part in text.split(","):
        name, separator, secret = part.strip().partition(":")
        if not separator or not name or len(secret) < PEPPER_BYTES_MIN:
            raise ValueError(f"A pepper is id:secret with at least {PEPPER_BYTES_MIN} characters.")
        peppers[name] = secret.encode()
    return peppers


def key_hint(key: str) -> str:
    """The part of a key that may be shown again: its first 13 and last 4 characters."""
    return f"{key[:SHOWN_HEAD]}...{key[-SHOWN_TAIL:]}"


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), length=CHECKSUM_LENGTH)


def _base62(number: int, *, length: int) -> str:
    characters = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        characters.append(BASE62[digit])
    return "".join(reversed(characters))
