"""Ids: time inside, text that sorts and reads back."""

import random
import subprocess
import sys
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnpike.kernel import clock, ids, keyspace

MILLISECONDS = st.integers(0, 2**48 - 1)
UUIDS = st.uuids()


@given(at_ms=MILLISECONDS)
def test_a_uuid7_carries_its_time_version_and_variant(at_ms: int) -> None:
    value = ids.uuid7(at_ms=at_ms)

    assert ids.uuid7_ms(value) == at_ms
    assert (value.version, value.variant) == (7, "specified in RFC 4122")


def test_uuids_of_one_millisecond_differ() -> None:
    assert len({ids.uuid7(at_ms=5) for _ in range(1_000)}) == 1_000


@given(at_ms=MILLISECONDS)
def test_a_request_s_two_ids_are_one(at_ms: int) -> None:
    rid, request_id = ids.new_request_id(at_ms=at_ms)

    value = UUID(rid)
    assert (str(value), ids.uuid7_ms(value)) == (rid, at_ms)
    assert (value.version, value.variant) == (7, "specified in RFC 4122")
    assert ids.parse_public_id(ids.REQUEST, request_id) == value


def test_requests_of_one_millisecond_differ_whoever_seeds_chance() -> None:
    rids = []
    for _ in range(1_000):
        random.seed(0)
        rids.append(ids.new_request_id(at_ms=5)[0])

    assert len(set(rids)) == 1_000


def test_a_child_process_makes_other_ids_than_its_parent() -> None:
    program = (
        "import os\n"
        "from turnpike.kernel import ids\n"
        "ids.new_request_id(at_ms=5)\n"
        "child = os.fork()\n"
        "os.write(1, ids.new_request_id(at_ms=5)[0].encode() + b'\\n')\n"
        "child and os.waitpid(child, 0)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)

    one, other = done.stdout.split()
    assert one != other


def test_a_new_uuid7_is_of_now() -> None:
    before = clock.now_ms()

    assert before <= ids.uuid7_ms(ids.uuid7()) <= clock.now_ms()


@given(microseconds=st.integers(10**6, 7 * 10**15))
def test_the_floor_of_an_instant_is_below_every_id_of_it(microseconds: int) -> None:
    milliseconds = microseconds // 1_000

    floor = ids.uuid7_floor(clock.datetime_of_us(microseconds))

    assert ids.uuid7_ms(floor) == milliseconds
    assert ids.uuid7(at_ms=max(0, milliseconds - 1)) < floor < ids.uuid7(at_ms=milliseconds)


@given(value=UUIDS)
def test_a_public_id_reads_back_and_has_a_fixed_width(value: UUID) -> None:
    text = ids.public_id(ids.REQUEST, value)

    assert ids.parse_public_id(ids.REQUEST, text) == value
    assert len(text) == len("req_01") + 22


@given(one=UUIDS, other=UUIDS)
def test_public_ids_sort_as_their_uuids_do(one: UUID, other: UUID) -> None:
    texts = [ids.public_id("x", value) for value in (one, other)]

    assert (texts[0] < texts[1]) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "req_01",
        "ten_01" + "1" * 22,
        "req_02" + "1" * 22,
        "req_01" + "1" * 21,
        "req_01" + "1" * 23,
        "req_01" + "0" * 22,
        "req_01" + "z" * 22,
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Not an id of the form req_01"):
        ids.parse_public_id(ids.REQUEST, text)


def test_shards_are_those_of_a_cluster_slot() -> None:
    # CRC16 of "123456789" is 0x31C3 in Redis' own specification.
    assert keyspace.shard_of("123456789") == 0x31C3 % keyspace.SHARDS
    assert keyspace.shard_of(42) == keyspace.shard_of("42")


@given(tenant=st.integers(1, 2**63 - 1))
def test_all_keys_of_a_tenant_share_the_tag_of_its_shard(tenant: int) -> None:
    tag = keyspace.tag(keyspace.shard_of(tenant))
    names = [
        keyspace.tenant_snapshot(tenant),
        keyspace.buckets(tenant),
        keyspace.slots(tenant, "t"),
        keyspace.wallet(tenant),
        keyspace.budgets(tenant),
        keyspace.record(tenant, "r"),
        keyspace.refusals(tenant),
        keyspace.outcome_counts(tenant, "2026-11-21T10"),
    ]
    shard = keyspace.shard_of(tenant)
    names += [keyspace.policy(shard), keyspace.open_requests(shard), keyspace.unposted(shard)]
    names += [keyspace.usage_stream(shard), keyspace.cold_tenants(shard)]

    assert all(name.startswith(f"{tag}:") for name in names)
    assert len(set(names)) == len(names)
