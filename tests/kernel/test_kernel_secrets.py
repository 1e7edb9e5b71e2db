"""Keys and secrets: form, digest, sealing; what a log must not show."""

import base64
import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnpike.kernel import hashing, logs, sealing

PREFIXES = st.sampled_from([hashing.API_KEY_PREFIX, hashing.MANAGEMENT_KEY_PREFIX])
PEPPERS = {"p2": b"b" * 32, "p1": b"a" * 32}
MASTERS = {"m2": bytes(range(32)), "m1": bytes(32)}


@given(prefix=PREFIXES)
def test_a_new_key_is_well_formed(prefix: str) -> None:
    key = hashing.new_key(prefix)

    assert key.startswith(prefix)
    assert len(key) == len(prefix) + 42
    assert hashing.is_well_formed(key) is True


@given(position=st.integers(0, 41), character=st.sampled_from(hashing.BASE62), prefix=PREFIXES)
def test_one_wrong_character_breaks_the_checksum(
    position: int, character: str, prefix: str
) -> None:
    key = hashing.new_key(prefix)
    at = len(prefix) + position
    changed = key[:at] + character + key[at + 1 :]

    assert hashing.is_well_formed(changed) is (changed == key)


@pytest.mark.parametrize(
    "text", ["", "tpk_live_", "sk-ant-" + "a" * 42, "tpk_test_" + "0" * 42, "tpk_live_" + "é" * 42]
)
def test_what_is_no_key_is_not_well_formed(text: str) -> None:
    assert hashing.is_well_formed(text) is False


def test_a_key_is_looked_up_under_every_pepper_the_newest_first() -> None:
    key = hashing.new_key(hashing.API_KEY_PREFIX)

    candidates = hashing.digest_candidates(key, peppers=PEPPERS)

    assert candidates == [hashing.digest_key(key, pepper=pepper) for pepper in PEPPERS.values()]
    assert len({*candidates}) == 2
    assert all(len(digest) == 64 for digest in candidates)


def test_peppers_are_read_in_their_order() -> None:
    peppers = hashing.parse_peppers(f"p2:{'b' * 32}, p1:{'a' * 32}")

    assert list(peppers.items()) == list(PEPPERS.items())


@pytest.mark.parametrize("text", ["", "p1", "p1:short", f":{'a' * 40}", f"p1:{'a' * 32},"])
def test_a_weak_pepper_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at least 32 characters"):
        hashing.parse_peppers(text)


def test_a_hint_shows_too_little_to_use() -> None:
    key = hashing.new_key(hashing.API_KEY_PREFIX)

    assert hashing.key_hint(key) == f"{key[:13]}...{key[-4:]}"


@given(secret=st.text(max_size=200), place=st.text(max_size=40))
def test_a_sealed_secret_opens_at_its_place_alone(secret: str, place: str) -> None:
    blob = sealing.seal(secret, place=place, master_keys=MASTERS)

    assert sealing.unseal(blob, place=place, master_keys=MASTERS) == secret
    assert blob.startswith("v1:m2:")
    with pytest.raises(sealing.CannotOpen):
        sealing.unseal(blob, place=place + "x", master_keys=MASTERS)


def test_two_seals_of_one_secret_differ() -> None:
    blobs = {sealing.seal("s", place="p", master_keys=MASTERS) for _ in range(5)}

    assert len(blobs) == 5


def test_an_older_master_key_still_opens() -> None:
    old = {"m1": MASTERS["m1"]}

    blob = sealing.seal("s", place="p", master_keys=old)

    assert sealing.unseal(blob, place="p", master_keys=MASTERS) == "s"
    with pytest.raises(sealing.CannotOpen, match="'m1'"):
        sealing.unseal(blob, place="p", master_keys={"m2": MASTERS["m2"]})


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_damaged_blob_does_not_open(position: int, flip: int) -> None:
    blob = sealing.seal("secret", place="p", master_keys=MASTERS)
    head, _, encoded = blob.rpartition(":")
    raw = bytearray(base64.urlsafe_b64decode(encoded))
    raw[position % len(raw)] ^= flip
    damaged = f"{head}:{base64.urlsafe_b64encode(raw).decode()}"

    with pytest.raises(sealing.CannotOpen):
        sealing.unseal(damaged, place="p", master_keys=MASTERS)


@pytest.mark.parametrize("blob", ["", "v1", "v2:m2:AAAA", "v1:m2:", "v1:m2:AAAA", "v1:m2:*"])
def test_what_is_no_blob_does_not_open(blob: str) -> None:
    with pytest.raises(sealing.CannotOpen):
        sealing.unseal(blob, place="p", master_keys=MASTERS)


def test_master_keys_are_32_bytes() -> None:
    fresh = sealing.new_master_key()

    assert len(sealing.parse_master_keys(f"m:{fresh}")["m"]) == 32
    for text in ("", "m", "m:AAAA", f":{fresh}"):
        with pytest.raises(ValueError, match="32 bytes"):
            sealing.parse_master_keys(text)


def test_logs_are_json_lines_that_hide_keys() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream, key = io.StringIO(), hashing.new_key(hashing.API_KEY_PREFIX)
    try:
        logs.set_up_logs(level="INFO", is_json=True, stream=stream)
        logging.getLogger("turnpike.test").info("seen.key", extra={"text": f"with {key}"})
    finally:
        root.handlers[:], root.level = handlers, level

    line = json.loads(stream.getvalue())
    assert line["event"] == "seen.key"
    assert line["text"] == "with tpk_live_***"
    assert logs.mask_secrets("Authorization: Bearer abcdefgh") == "Authorization: Bearer ***"
