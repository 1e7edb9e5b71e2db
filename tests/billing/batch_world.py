"""A world for message batches: the shipped catalogue, the simulator, tenants with keys."""

import json
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from django.test import Client

from accounts.models import Workspace
from accounts.services import keys, tenants
from billing.models.batches import BatchItem, BatchPart, LedgerHold, MessageBatch
from billing.models.ledger import Wallet
from billing.models.usage import UsageEvent
from billing.services import catalog, publication, tiers, upstreams, wallet
from billing.services.batch_running import run_parts
from billing.services.reconciliation import reconcile
from tests.support.plain_http import NO_AUTHORITIES
from turnpike.control.caller import SYSTEM
from turnpike.control.redis import redis_client
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, keyspace

MODEL = "claude-haiku-4-5-20251001"
MODELS = (MODEL, "claude-opus-4-8", "claude-3-5-sonnet-20241022")
PATH = "/v1/messages/batches"
VERSION = {"anthropic-version": "2023-06-01"}
NANOS = 1_000_000_000
EXPIRE = {"user_id": "simulator-expire"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A tenant's program: its key, and how it calls."""

    tenant: int
    workspace: Workspace
    secret: str

    def call(
        self, method: str, path: str = PATH, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        """One call; the status and the decoded answer."""
        client = Client(raise_request_exception=False)
        sent = {"x-api-key": self.secret, **VERSION}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        answer = client.generic(
            method, path, content, content_type="application/json", headers=sent
        )
        if answer.streaming:
            return answer.status_code, answer
        return answer.status_code, json.loads(answer.content)

    def create(self, items: Iterable[Mapping[str, Any]], **headers: str) -> Any:
        """A batch that must be admitted."""
        status, answer = self.call("POST", body={"requests": list(items)}, **headers)
        assert status == 200, answer
        return answer

    def wallet(self) -> Wallet:
        """The wallet's row."""
        with platform_scope("tests"):
            return Wallet.objects.get(tenant_id=self.tenant)

    def redis_wallet(self) -> dict[str, int]:
        """The wallet in Redis."""
        stored: Any = redis_client().hgetall(keyspace.wallet(self.tenant))
        return {name.decode(): int(value) for name, value in stored.items()}

    def available_micro(self) -> int:
        """What admission would say is left."""
        stored = self.redis_wallet()
        return stored["posted"] + stored.get("limit", 0) - stored.get("held", 0)


def make_platform(simulator_url: str, *, has_batches: bool = True) -> None:
    """Catalogue, tiers, the simulator as the only upstream, and everything published."""
    catalog.import_catalog(small_catalog())
    tiers.ensure_tiers()
    row = upstreams.add_upstream(
        name="simulator",
        kind="anthropic",
        base_url=simulator_url,
        credential="a-key-for-the-simulator",
        is_simulator=True,
        send_request_id=True,
    )
    if not has_batches:
        row.has_batches = False
        row.save()
    publication.publish_everything()


@cache
def small_catalog() -> Path:
    """The shipped catalogue with three models of it: imported in a moment."""
    content = json.loads(catalog.SHIPPED_CATALOG.read_text())
    content["models"] = [
        {**row, "successor": None} for row in content["models"] if row["id"] in MODELS
    ]
    path = Path(tempfile.mkdtemp()) / "catalog.json"
    path.write_text(json.dumps(content))
    return path


def make_program(*, credit: int = 100 * NANOS, **settings: Any) -> Program:
    """A tenant of its own with credit in nanos and one key."""
    tenant = tenants.create_tenant(caller=SYSTEM, name=f"batch-{uuid.uuid4().hex[:8]}").pk
    tiers.set_tier(tenant=tenant, tier="pro", actor="system", reason="tests")
    wallet.grant_credit(
        tenant=tenant,
        amount=credit,
        idempotency_key=f"grant {tenant}",
        reason="tests",
        actor="system",
    )
    with platform_scope("tests"):
        workspace = Workspace.objects.get(tenant_id=tenant)
        issued = keys.issue_key(
            caller=SYSTEM, workspace=workspace, settings={"name": "batches", **settings}
        )
    return Program(tenant=tenant, workspace=workspace, secret=issued.secret)


def item(number: int, **params: Any) -> dict[str, Any]:
    """An item that says its number."""
    body = {
        "model": MODEL,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": f"Item {number}, please."}],
        **params,
    }
    return {"custom_id": f"item-{number}", "params": body}


def items(count: int) -> list[dict[str, Any]]:
    """So many items."""
    return [item(number) for number in range(count)]


def work(*, seconds: float = 60.0) -> None:
    """Carry on what is due, and what becomes due, until every batch has ended."""
    until = clock.monotonic_seconds() + seconds
    while clock.monotonic_seconds() < until:
        hasten()
        run_parts(until_seconds=until)
        with platform_scope("tests"):
            if not MessageBatch.objects.filter(ended_at=None).exists():
                return
    raise AssertionError("The batches have not ended.")


def hasten() -> None:
    """Let time pass for parts that wait for their turn."""
    with platform_scope("tests"):
        BatchPart.objects.filter(leased_until=None).update(due_at=clock.utc_now())


def results_of(batch: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The stored results by custom id, as the results endpoint gives them."""
    from billing.api.batches import _chunk
    from billing.services.batch_content import open_batch_key

    row = row_of(batch)
    found: dict[str, dict[str, Any]] = {}
    after = -1
    while True:
        chunk, after = _chunk(row.tenant_id, row.id, open_batch_key(row), after)
        if not chunk:
            return found
        for line in chunk.splitlines():
            entry = json.loads(line)
            found[entry["custom_id"]] = entry["result"]


def row_of(batch: Mapping[str, Any]) -> MessageBatch:
    """The row of a batch."""
    with platform_scope("tests"):
        return MessageBatch.objects.get(pk=ids.parse_public_id(ids.BATCH, batch["id"]))


def hold_of(batch: Mapping[str, Any]) -> LedgerHold:
    """The hold of a batch."""
    with platform_scope("tests"):
        return LedgerHold.objects.get(pk=ids.parse_public_id(ids.BATCH, batch["id"]))


def events_of(program: Program) -> list[UsageEvent]:
    """The tenant's usage events."""
    with platform_scope("tests"):
        return list(UsageEvent.objects.filter(tenant_id=program.tenant).order_by("request_id"))


def items_of(batch: Mapping[str, Any]) -> list[BatchItem]:
    """The rows of a batch's items."""
    with platform_scope("tests"):
        return list(BatchItem.objects.filter(batch=row_of(batch)).order_by("number"))


def billed(simulator_url: str) -> list[dict[str, Any]]:
    """What the simulator wrote down."""
    rows: list[dict[str, Any]] = httpx.get(
        f"{simulator_url}/_billed", timeout=30, verify=NO_AUTHORITIES
    ).json()
    return rows


def differences() -> list[str]:
    """What reconciliation finds."""
    return [f"{f.check}: {f.examples}" for f in reconcile() if f.differences]


def price_of(usage: Mapping[str, int]) -> int:
    """Haiku 4.5 at half its price, in nanos: 0.50 and 2.50 dollars a million tokens."""
    return usage["input_tokens"] * 500 + usage["output_tokens"] * 2_500


def expected_nano(rows: Sequence[Mapping[str, Any]]) -> int:
    """What the simulator's record is worth at batch prices."""
    return sum(price_of(row["usage"]) for row in rows)
