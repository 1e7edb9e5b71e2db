"""Secrets at rest: AES-256-GCM with a data key per secret, wrapped by a master key.

A blob is ``v1:<master key id>:<base64url>``. The associated data names the place of the secret
(table, row, column), so that a ciphertext cannot be moved to another row. Several master keys may
open; the first one seals. Of the third parties, `cryptography` stands here alone.
"""

import base64
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
WRAPPED_BYTES = KEY_BYTES + 16


class CannotOpen(ValueError):
    """The blob is damaged, belongs to another place, or its master key is not among the known."""


def parse_master_keys(text: str) -> dict[str, bytes]:
    """Read ``id:base64,id:base64`` of 32 bytes each, the sealing one first; ValueError if bad."""
    keys: dict[str, bytes] = {}
    for part in text.split(","):
        name, separator, encoded = part.strip().partition(":")
        raw = base64.urlsafe_b64decode(encoded) if separator else b""
        if not name or len(raw) != KEY_BYTES:
            raise ValueError("A master key is id:base64url of 32 bytes.")
        keys[name] = raw
    return keys


def new_master_key() -> str:
    """A new master key as text, without its id."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def seal(secret: str, *, place: str, master_keys: Mapping[str, bytes]) -> str:
    """Encrypt a secret for one place with the first master key."""
    key_id, master = next(iter(master_keys.items()))
    data_key = os.urandom(KEY_BYTES)
    wrap_nonce, nonce = os.urandom(NONCE_BYTES), os.urandom(NONCE_BYTES)
    wrapped = AESGCM(master).encrypt(wrap_nonce, data_key, place.encode())
    sealed = AESGCM(data_key).encrypt(nonce, secret.encode(), place.encode())
    return f"v1:{key_id}:{base64.urlsafe_b64encode(wrap_nonce + wrapped + nonce + sealed).decode()}"


def unseal(blob: str, *, place: str, master_keys: Mapping[str, bytes]) -> str:
    """Decrypt what `seal` made for the same place. Raises CannotOpen."""
    version, _, rest = blob.partition(":")
    key_id, _, encoded = rest.partition(":")
    master = master_keys.get(key_id)
    if version != "v1" or master is None:
        raise CannotOpen(f"No master key {key_id!r} opens this secret.")
    try:
        raw = base64.urlsafe_b64decode(encoded)
        head = NONCE_BYTES + WRAPPED_BYTES
        data_key = AESGCM(master).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:head], place.encode())
        nonce, sealed = raw[head : head + NONCE_BYTES], raw[head + NONCE_BYTES :]
        return AESGCM(data_key).decrypt(nonce, sealed, place.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise CannotOpen("The secret is damaged or belongs to another place.") from error


class DataKey:
    """A key for many blobs of one thing; itself kept as a sealed secret."""

    def __init__(self, raw: bytes) -> None:
        self._cipher = AESGCM(raw)

    def seal(self, content: bytes, *, place: str) -> bytes:
        """Encrypt for one place below the thing."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, place.encode())

    def unseal(self, blob: bytes, *, place: str) -> bytes:
        """Decrypt what `seal` made for the same place. Raises CannotOpen."""
        try:
            return self._cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError) as error:
            raise CannotOpen("The content is damaged or belongs to another place.") from error


def make_data_key(*, place: str, master_keys: Mapping[str, bytes]) -> tuple[DataKey, str]:
    """A new data key, and the same sealed for its place."""
    text = new_master_key()
    return DataKey(base64.urlsafe_b64decode(text)), seal(text, place=place, master_keys=master_keys)


def open_data_key(blob: str, *, place: str, master_keys: Mapping[str, bytes]) -> DataKey:
    """The data key that was sealed for a place. Raises CannotOpen."""
    return DataKey(base64.urlsafe_b64decode(unseal(blob, place=place, master_keys=master_keys)))
