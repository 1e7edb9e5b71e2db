"""What lives at the upstream belongs to the tenant whose answer named it, and to nobody else."""

import dataclasses
import json
from typing import Any

import pytest
import redis

from tests.gateway.conftest import MASTER_KEYS, PEPPERS, SONNET
from turnpike.contracts.features import CONTAINER, FILE, objects_of
from turnpike.contracts.snapshots import (
    Candidate,
    CredentialSnapshot,
    KeySnapshot,
    Switches,
    TenantTerms,
    TenantWho,
    WorkspaceSnapshot,
    credential_place,
)
from turnpike.kernel import codec, hashing, keyspace, sealing

CODE = {"type": "code_execution_20250825", "name": "code_execution"}
OTHER_TENANT = 8


def ask(text: str = "[[code]] Hello", **fields: Any) -> dict[str, Any]:
    usual = {"model": SONNET, "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
    return {**usual, "tools": [CODE], **fields}


def upload(ident: str, *, kind: str = "container_upload") -> dict[str, Any]:
    block = (
        {"type": kind, "file_id": ident}
        if kind == "container_upload"
        else {"type": kind, "source": {"type": "file", "file_id": ident}}
    )
    return ask(messages=[{"role": "user", "content": [block, {"type": "text", "text": "Hello"}]}])


@pytest.fixture(autouse=True)
def code_execution_is_on(world: Any) -> None:
    world.publish_plane(switches=Switches(allowed_features=("code_execution",)))


@pytest.fixture
def other(world: Any, redis_client: redis.Redis) -> str:
    """Another tenant's key."""
    secret = hashing.new_key(hashing.API_KEY_PREFIX)
    key = KeySnapshot(key=800, key_id="apikey_02x", tenant=OTHER_TENANT, workspace=80)
    who = TenantWho(
        tenant_id="ten_02x", workspaces={"80": WorkspaceSnapshot(workspace_id="wrkspc_02x")}
    )
    digest = hashing.digest_key(secret, pepper=PEPPERS["p1"])
    redis_client.set(keyspace.key_snapshot(digest), codec.to_json(key))
    redis_client.hset(
        keyspace.tenant_snapshot(OTHER_TENANT),
        mapping={
            "who": codec.to_json(who),
            "terms": codec.to_json(TenantTerms(tier="pro", book=1)),
        },
    )
    shard = keyspace.shard_of(OTHER_TENANT)
    redis_client.hset(keyspace.policy(shard), str(OTHER_TENANT), "1")
    redis_client.hset(
        keyspace.wallet(OTHER_TENANT), mapping={"posted": 100_000_000, "ver": 1, "limit": 0}
    )
    return secret


def named(response: Any) -> dict[str, str]:
    """The container and the file that an answer names, JSON or stream."""
    if response.headers["content-type"].startswith("application/json"):
        documents = [response.json()]
    else:
        lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
        documents = [json.loads(line[6:]) for line in lines]
    return {kind: ident for item in documents for kind, ident in objects_of(item)}


@pytest.mark.parametrize("is_stream", [False, True], ids=["json", "stream"])
async def test_a_container_and_its_files_are_the_tenants_that_got_them(
    gateway: Any, other: str, is_stream: bool
) -> None:
    first = await gateway.post(ask(stream=is_stream))
    names = named(first)

    assert names[CONTAINER].startswith("container_")
    assert names[FILE].startswith("file_")
    for body in (
        ask(container=names[CONTAINER]),
        ask(container={"id": names[CONTAINER]}),
        upload(names[FILE]),
        upload(names[FILE], kind="document"),
    ):
        mine = await gateway.post(body)
        theirs = await gateway.post(body, x_api_key=other)
        assert (mine.status_code, theirs.status_code) == (200, 404), body
        assert theirs.json()["error"]["type"] == "not_found_error"
        assert "was not found" in theirs.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        ask(container="container_" + "x" * 300),
        ask(container="container_01nobody"),
        upload("file_01nobody"),
        upload("file_01nobody", kind="image"),
        ask(diagnostics={"previous_message_id": "msg_01nobody"}),
    ],
    ids=["long", "container", "upload", "image", "message"],
)
async def test_what_nobody_named_to_the_tenant_is_not_found(
    gateway: Any, world: Any, body: dict[str, Any]
) -> None:
    refused = await gateway.post(body)
    counted = await gateway.post(
        {name: value for name, value in body.items() if name != "max_tokens"},
        path="/v1/messages/count_tokens",
    )
    world.publish_plane(switches=Switches(allowed_features=("code_execution", "shared_objects")))
    allowed = await gateway.post(body)

    assert (refused.status_code, counted.status_code) == (404, 404)
    assert "was not found" not in allowed.text or "container" in allowed.text
    assert allowed.headers.get("x-should-retry") != "true"
    assert world.held_micro() <= 10_000


async def test_a_refusal_is_told_in_the_tenants_log(gateway: Any, world: Any) -> None:
    await gateway.post(upload("file_01nobody"))
    rows: list[bytes] = []

    def has_row() -> bool:
        rows[:] = world.redis.lrange(keyspace.refusals(7), 0, -1)
        return bool(rows)

    await gateway.until(has_row)

    assert json.loads(rows[0])["reason"] == "ownership"


async def test_an_id_cannot_hide_behind_its_spelling(gateway: Any) -> None:
    for raw in (
        b'{"type":"container_upload","file\\u005fid":"file_01nobody"}',
        b'{"type":"container_upload","f\\u0069le_id":"file_01nobody"}',
        b'{"type":"container_upload","file_id"  :\n"file_01nobody"}',
    ):
        body = json.dumps(ask(), separators=(",", ":")).encode()
        content = b'"content":[' + raw + b',{"type":"text","text":"[[code]] \\u0061"}]'
        answer = await gateway.post(body.replace(b'"content":"[[code]] Hello"', content))
        assert answer.status_code == 404, raw


async def test_a_key_that_stands_twice_is_refused(gateway: Any) -> None:
    raw = b'{"type":"container_upload","file_id":"file_01mine","file_id":"file_01theirs"}'
    body = json.dumps(ask(), separators=(",", ":")).encode()

    answer = await gateway.post(body.replace(b'"[[code]] Hello"', b"[" + raw + b"]"))

    assert answer.status_code == 400
    assert "Duplicate key" in answer.json()["error"]["message"]


async def test_what_a_tool_put_out_may_be_told_again(gateway: Any) -> None:
    first = await gateway.post(ask())
    content = first.json()["content"]
    # The output's id is forgotten everywhere; the turn that tells of it still goes out.
    for block in content:
        if block["type"] == "code_execution_tool_result":
            block["content"]["content"][0]["file_id"] = "file_01gone"
    turns = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": "Go on"},
    ]

    again = await gateway.post(ask(messages=turns))

    assert again.status_code == 200


def test_what_a_model_wrote_names_nothing() -> None:
    wanted = {"type": "tool_use", "id": "t", "name": "x", "input": {"file_id": "file_01theirs"}}
    message = {"type": "message", "id": "msg_1", "content": [wanted], "container": None}

    assert list(objects_of(message)) == [("message", "msg_1")]


async def test_a_lost_redis_makes_objects_unknown_and_harms_nobody(
    gateway: Any, world: Any
) -> None:
    names = named(await gateway.post(ask()))
    world.redis.delete(keyspace.owned_object(7, CONTAINER, names[CONTAINER]))

    answer = await gateway.post(ask(container=names[CONTAINER]))

    assert answer.status_code == 404


async def test_a_request_goes_where_its_container_lives(gateway: Any, world: Any) -> None:
    first = world.plane.upstreams["9"]
    sealed = sealing.seal("other", place=credential_place(6), master_keys=MASTER_KEYS)
    away = dataclasses.replace(
        first,
        upstream=10,
        name="away",
        base_url="http://127.0.0.1:1",
        credentials=(CredentialSnapshot(credential=6, sealed=sealed),),
    )
    names = named(await gateway.post(ask()))
    routes = (
        Candidate(upstream=10, upstream_model=SONNET, priority=0),
        Candidate(upstream=9, upstream_model=SONNET, priority=1),
    )
    world.publish_plane(
        upstreams={"9": first, "10": away}, routes={**world.plane.routes, SONNET: routes}
    )

    pinned = await gateway.post(ask(container=names[CONTAINER]))
    event = world.events()[-1]
    world.publish_plane(routes={**world.plane.routes, SONNET: routes[:1]})
    lost = await gateway.post(ask(container=names[CONTAINER]))

    assert pinned.status_code == 200
    assert [attempt.upstream for attempt in event.attempts] == [9]
    assert lost.status_code == 529


async def test_a_thread_goes_on_for_its_owner_alone(gateway: Any, world: Any, other: str) -> None:
    world.publish_plane(switches=Switches(allowed_features=("threads",)))
    beta = "message-threads-2026-08-12"
    plain = ask("Hello", tools=[])
    first = await gateway.post({**plain, "thread": {"type": "create"}}, anthropic_beta=beta)
    go_on = {**plain, "thread": {"type": "continue", "previous_message_id": first.json()["id"]}}

    mine = await gateway.post(go_on, anthropic_beta=beta)
    theirs = await gateway.post(go_on, anthropic_beta=beta, x_api_key=other)

    assert (mine.status_code, theirs.status_code) == (200, 404)
