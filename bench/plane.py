"""A data plane as in production, with everything on and limits out of the way.

The snapshots are published straight to Valkey in the shape of the contracts, for one tenant with
one key: the data plane needs no database, and nothing else then shares the processor.
"""

import base64
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import redis

from bench.processes import ROOT
from turnpike.contracts.snapshots import (
    Candidate,
    CredentialSnapshot,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    PlaneSnapshot,
    Price,
    PriceSet,
    TenantTerms,
    TenantWho,
    TierSnapshot,
    UpstreamSnapshot,
    WorkspaceSnapshot,
    credential_place,
)
from turnpike.embedded.engines import find_valkey
from turnpike.embedded.places import find_places
from turnpike.embedded.valkey import EmbeddedValkey
from turnpike.kernel import codec, hashing, keyspace, sealing

MODEL = "claude-sonnet-5"
TENANT, WORKSPACE, KEY, BOOK, UPSTREAM, CREDENTIAL = 1, 1, 1, 1, 1, 1
VERSION = 1
PLENTY = 1_000_000_000
MICRO_PLENTY = 10**15  # below 2^53, where doubles stay exact
NANO_PER_MTOK = {
    "input": 3_000_000_000,
    "output": 15_000_000_000,
    "cache_write_5m": 3_750_000_000,
    "cache_write_1h": 6_000_000_000,
    "cache_read": 300_000_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What both the publisher and the data plane know."""

    pepper: str
    master_key: str
    api_key: str

    @classmethod
    def make(cls) -> "Secrets":
        """New ones for one run."""
        return cls(
            pepper=base64.urlsafe_b64encode(os.urandom(33)).decode(),
            master_key=sealing.new_master_key(),
            api_key=hashing.new_key(hashing.API_KEY_PREFIX),
        )


def make_valkey(state: Path) -> EmbeddedValkey:
    """An embedded Valkey with the persistence of production."""
    server = EmbeddedValkey(engine=find_valkey(), places=find_places(state))
    server.prepare()
    return server


def plane_environment(*, secrets: Secrets, redis_url: str, state: Path) -> dict[str, str]:
    """The environment of the data plane."""
    return {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
        "REDIS_URL": redis_url,
        "KEY_PEPPERS": f"b1:{secrets.pepper}",
        "MASTER_KEYS": f"b1:{secrets.master_key}",
        "JOURNAL_DIR": str(state / "journal"),
        "METRICS_DIR": str(state / "metrics"),
        # A busy machine must not look like an outage of Redis: that costs a run its figures.
        "REDIS_TIMEOUT_MS": "2000",
    }


def plane_command(port: int) -> list[str]:
    """gunicorn with one worker, as in production."""
    return [
        *(sys.executable, "-m", "gunicorn", "proxy.app:app", "-k", "proxy.server.Worker"),
        *("-w", "1", "--bind", f"127.0.0.1:{port}", "--no-control-socket", "--preload"),
        *("--log-level", "warning", "--graceful-timeout", "10"),
    ]


def publish(client: redis.Redis, *, secrets: Secrets, upstream_port: int) -> None:
    """Write every snapshot that a request needs, values first and versions last."""
    plane = _plane(secrets, upstream_port)
    fields = {name: codec.to_json(getattr(plane, name)) for name in plane.__slots__}
    _put(client, keyspace.PLANE, fields)
    digest = hashing.digest_key(secrets.api_key, pepper=secrets.pepper.encode())
    key = KeySnapshot(key=KEY, key_id="apikey_bench", tenant=TENANT, workspace=WORKSPACE)
    client.set(keyspace.key_snapshot(digest), codec.to_json(key))
    workspaces = {str(WORKSPACE): WorkspaceSnapshot(workspace_id="wrkspc_bench")}
    who = TenantWho(tenant_id="ten_bench", workspaces=workspaces)
    terms = TenantTerms(tier="bench", book=BOOK)
    values = {"who": codec.to_json(who), "terms": codec.to_json(terms)}
    _put(client, keyspace.tenant_snapshot(TENANT), values)
    _put(client, keyspace.wallet(TENANT), {"posted": MICRO_PLENTY, "limit": 0, "held": 0, "ver": 1})
    versions = {keyspace.GLOBAL_VERSION: VERSION, str(TENANT): VERSION}
    for shard in range(keyspace.SHARDS):
        _put(client, keyspace.policy(shard), {**versions, "epoch": 1, "opens_at_ms": 0})


def _put(client: redis.Redis, name: str, fields: Mapping[str, str | int]) -> None:
    client.hset(name, items=[part for item in fields.items() for part in item])


def _plane(secrets: Secrets, upstream_port: int) -> PlaneSnapshot:
    sealed = sealing.seal(
        "sk-bench",
        place=credential_place(CREDENTIAL),
        master_keys=sealing.parse_master_keys(f"b1:{secrets.master_key}"),
    )
    limits = Limits(requests_per_minute=PLENTY, tokens_per_minute=PLENTY, concurrency=100_000)
    prices = tuple(
        Price(component=component, nano_per_mtok=rate) for component, rate in NANO_PER_MTOK.items()
    )
    upstream = UpstreamSnapshot(
        upstream=UPSTREAM,
        name="static",
        kind="anthropic",
        base_url=f"http://127.0.0.1:{upstream_port}",
        credentials=(CredentialSnapshot(credential=CREDENTIAL, sealed=sealed),),
        send_request_id=True,
    )
    return PlaneSnapshot(
        tiers={"bench": TierSnapshot(tier="bench", name="Bench", limits=limits)},
        models={MODEL: ModelSnapshot(model=MODEL, display_name=MODEL, max_tokens=128_000)},
        prices=(PriceSet(price_set=1, book=BOOK, from_us=0, prices={MODEL: prices}),),
        routes={MODEL: (Candidate(upstream=UPSTREAM, upstream_model=MODEL),)},
        upstreams={str(UPSTREAM): upstream},
    )
