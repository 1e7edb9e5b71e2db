"""The playground: its key is derived and never kept, and its answer is the data plane's own."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import redis
from django.db import connection
from django.test import Client

from accounts.models import ApiKey, AuditEvent, Role
from accounts.services.playground import open_playground
from accounts.services.workspaces import archive_workspace, create_workspace
from tests.console.console_world import World, client_for, make_world
from turnpike.contracts.snapshots import KIND_PLAYGROUND
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import hashing, keyspace
from turnpike.kernel.errors import Conflict
from turnpike.web import relay as relaying
from turnpike.web.relay import relay

STREAM = "/console/playground/stream"


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client, days=1)


def digest_of(secret: str) -> str:
    return hashing.digest_key(secret, pepper=next(iter(env().peppers.values())))


def test_the_key_is_derived_anew_each_time_and_kept_nowhere(
    world: World, redis_client: redis.Redis
) -> None:
    with platform_scope("tests"):
        first = open_playground(caller=SYSTEM, workspace=world.shop.workspace)
        second = open_playground(caller=SYSTEM, workspace=world.shop.workspace)
        row = ApiKey.objects.get(kind=KIND_PLAYGROUND)
        audit = list(AuditEvent.objects.filter(target=row.public_id).values())
        with connection.cursor() as cursor:
            cursor.execute("SELECT row_to_json(k)::text FROM accounts_apikey k")
            stored = "".join(text for (text,) in cursor.fetchall())

    assert first == second
    assert hashing.is_well_formed(first)
    assert row.digest == digest_of(first)
    assert first not in stored + str(audit)
    assert len(audit) == 1


def test_the_data_plane_knows_the_key_as_a_playgrounds(
    world: World, redis_client: redis.Redis, django_capture_on_commit_callbacks: Any
) -> None:
    with platform_scope("tests"), django_capture_on_commit_callbacks(execute=True):
        secret = open_playground(caller=SYSTEM, workspace=world.shop.workspace)

    snapshot = json.loads(redis_client.get(keyspace.key_snapshot(digest_of(secret))) or "{}")
    assert snapshot["kind"] == KIND_PLAYGROUND
    assert snapshot["workspace"] == world.shop.workspace.pk


def test_a_key_whose_pepper_is_gone_is_replaced_by_the_next_generation(world: World) -> None:
    with platform_scope("tests"):
        first = open_playground(caller=SYSTEM, workspace=world.shop.workspace)
        ApiKey.objects.filter(kind=KIND_PLAYGROUND).update(pepper_id="gone")

        second = open_playground(caller=SYSTEM, workspace=world.shop.workspace)

        rows = ApiKey.objects.filter(kind=KIND_PLAYGROUND).order_by("pk")
        assert [row.generation for row in rows] == [1, 2]
        assert [row.revoked_at is None for row in rows] == [False, True]
    assert second != first


def test_workspaces_have_keys_of_their_own_and_an_archived_one_has_none(world: World) -> None:
    with platform_scope("tests"):
        other = create_workspace(
            caller=SYSTEM, tenant=world.shop.tenant, settings={"name": "Research"}
        )
        secrets = {
            open_playground(caller=SYSTEM, workspace=workspace)
            for workspace in (world.shop.workspace, other)
        }
        archive_workspace(caller=SYSTEM, workspace=other)
        other.refresh_from_db()

        with pytest.raises(Conflict):
            open_playground(caller=SYSTEM, workspace=other)
        assert ApiKey.objects.get(kind=KIND_PLAYGROUND, workspace=other).revoked_at is not None
    assert len(secrets) == 2


def test_people_neither_see_nor_change_the_key(world: World) -> None:
    with platform_scope("tests"):
        open_playground(caller=SYSTEM, workspace=world.shop.workspace)
        key = ApiKey.objects.get(kind=KIND_PLAYGROUND)
    client = client_for(world.members[Role.OWNER])

    page = client.get("/console/keys").content.decode()
    answer = client.post(f"/console/keys/{key.public_id}", {"action": "disable"})
    listed = client.get("/api/v1/keys").json()

    assert key.public_id not in page
    assert answer.status_code == 404
    assert key.public_id not in str(listed)


@pytest.mark.parametrize("body", ["nonsense", "[]", '{"workspace": 1}', '{"request": []}'])
def test_what_cannot_be_read_is_refused_as_data(world: World, body: str) -> None:
    client = client_for(world.members[Role.DEVELOPER])

    answer = client.post(STREAM, body, content_type="application/json")

    assert answer.status_code in {400, 404}
    assert answer.json()["type"] == "error"


def test_a_run_wants_a_csrf_token(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(
        world.members[Role.OWNER].user, backend="django.contrib.auth.backends.ModelBackend"
    )

    assert client.post(STREAM, "{}", content_type="application/json").status_code == 403


def test_a_receipt_that_is_not_there_yet_says_so_and_one_that_is_has_the_charge(
    world: World,
) -> None:
    client = client_for(world.members[Role.DEVELOPER])
    unknown = "req_011ChFdkDHvpS6nnYrnrBo8b"

    posted = client.get(f"/console/playground/receipts/{world.newest}").json()

    assert client.get(f"/console/playground/receipts/{unknown}").json() == {"is_posted": False}
    assert client.get("/console/playground/receipts/nonsense").status_code == 404
    assert posted["is_posted"] is True
    assert posted["cost"].startswith("$")
    assert posted["log"] == f"/console/logs/{world.newest}"


class Plane(BaseHTTPRequestHandler):
    """A data plane that refuses, or answers and never ends."""

    seen: list[dict[str, str]] = []
    gone = threading.Event()

    def do_POST(self) -> None:
        """Answer by what the body says."""
        Plane.seen.append({name.lower(): value for name, value in self.headers.items()})
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["model"] == "refused":
            self.send_response(402)
            self.send_header("request-id", "req_1")
            self.end_headers()
            self.wfile.write(b'{"type": "error"}')
            return
        self.send_response(200)
        self.end_headers()
        while True:
            try:
                self.wfile.write(b"event: ping\ndata: {}\n\n")
                self.wfile.flush()
            except OSError:
                Plane.gone.set()
                return

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def plane() -> Iterator[str]:
    """The address of such a plane."""
    Plane.gone.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Plane)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def run(base_url: str, model: str) -> AsyncIterator[bytes]:
    body = json.dumps({"model": model}).encode()
    return relay(base_url=base_url, headers={"x-api-key": "secret"}, body=body)


async def test_a_refusal_is_passed_on_with_its_status(plane: str) -> None:
    parts = [part async for part in run(plane, "refused")]

    opening = json.loads(parts[0].decode().split("data: ")[1])
    assert (opening["status"], opening["request-id"]) == (402, "req_1")
    assert b"".join(parts[1:]) == b'{"type": "error"}'
    assert Plane.seen[-1]["x-api-key"] == "secret"


async def test_who_stops_listening_ends_the_request(plane: str) -> None:
    stream = run(plane, "endless")
    async for part in stream:
        if b"ping" in part:
            break
    await stream.aclose()  # type: ignore[attr-defined]

    assert Plane.gone.wait(5)


async def test_a_data_plane_that_is_away_is_a_sentence() -> None:
    parts = [part async for part in run("http://127.0.0.1:9", "any")]

    assert b'"status": 502' in parts[0]
    assert b"cannot be reached" in parts[1]


async def test_there_is_an_end_to_how_many_run_at_once(plane: str) -> None:
    streams = [run(plane, "endless") for _ in range(relaying.STREAMS_MAX)]
    for stream in streams:
        await anext(stream)

    parts = [part async for part in run(plane, "endless")]

    assert b'"status": 503' in parts[0]
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]
    assert [part async for part in run(plane, "refused")]
