"""The URL of a cluster, and the slots that its keys have."""

import pytest

from turnpike.kernel import keyspace
from turnpike.kernel.cluster_url import ClusterUrl, is_cluster_url, parse_cluster_url


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis+cluster://a:1,b:2", ClusterUrl(seeds=(("a", 1), ("b", 2)))),
        ("redis+cluster://a, b:2/0", ClusterUrl(seeds=(("a", 6379), ("b", 2)))),
        ("redis+cluster://[::1]:7,[::2]", ClusterUrl(seeds=(("::1", 7), ("::2", 6379)))),
        (
            "rediss+cluster://u:p%40ss,word@a:1?ssl_ca_certs=/ca.pem",
            ClusterUrl(
                seeds=(("a", 1),),
                username="u",
                password="p@ss,word",
                is_tls=True,
                ca_file="/ca.pem",
            ),
        ),
        ("redis+cluster://:only@a", ClusterUrl(seeds=(("a", 6379),), password="only")),
    ],
)
def test_a_url_is_read(url: str, read: ClusterUrl) -> None:
    assert is_cluster_url(url)
    assert parse_cluster_url(url) == read


@pytest.mark.parametrize(
    "url",
    ["redis://a", "redis+cluster://a:1/2", "redis+cluster://a:x", "redis+cluster://", "a:1,b:2"],
)
def test_a_bad_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"Redis Cluster"):
        parse_cluster_url(url)


def test_a_single_server_is_no_cluster() -> None:
    assert not is_cluster_url("redis://a:1/0")
    assert not is_cluster_url("unix:///run/v.sock?db=1")


def test_a_node_has_the_url_of_a_single_server() -> None:
    url = parse_cluster_url("rediss+cluster://u:p%40@a:1?ssl_ca_certs=/ca.pem")

    assert url.node_url(("b", 2)) == "rediss://u:p%40@b:2?ssl_ca_certs=/ca.pem"
    assert parse_cluster_url("redis+cluster://a").node_url(("::1", 2)) == "redis://[::1]:2"


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(parse_cluster_url("redis+cluster://:hunter2@a"))


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 0x31C3),
        (b"foo", 12182),
        (b"{user1000}.following", keyspace.slot_of(b"user1000")),
        (b"foo{}{bar}", keyspace.slot_of(b"foo{}{bar}")),
        (b"foo{{bar}}", keyspace.slot_of(b"{bar")),
        (b"foo{bar}{zap}", keyspace.slot_of(b"bar")),
    ],
)
def test_a_slot_is_what_a_cluster_makes_of_a_key(key: bytes, slot: int) -> None:
    assert keyspace.slot_of(key) == slot % keyspace.SLOTS


def test_every_key_of_a_shard_has_the_same_slot() -> None:
    names = [
        keyspace.policy(keyspace.shard_of(7)),
        keyspace.wallet(7),
        keyspace.record(7, "r"),
        keyspace.usage_stream(keyspace.shard_of(7)),
    ]

    assert len({keyspace.slot_of(name.encode()) for name in names}) == 1
