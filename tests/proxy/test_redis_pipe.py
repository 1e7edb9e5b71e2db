"""The pipelined connection against a real server: order, time, loss and return of the server."""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.prepared_call import PreparedCall
from proxy.redis_pipe import RedisAddress, RedisAway, RedisPipe, RedisReplyError
from tests.proxy.raw_server import until
from tests.support.ports import free_port
from turnpike.embedded.engines import find_valkey

ECHO_SOURCE = "return {KEYS[1], ARGV[1]}"


@dataclass(frozen=True, slots=True)
class LuaScript:
    source: str

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
async def pipe(redis_client: redis.Redis) -> AsyncIterator[RedisPipe]:
    one = RedisPipe(os.environ["REDIS_URL"], timeout_seconds=5)
    await one.start()
    yield one
    await one.stop()


class PrivateServer:
    """A Valkey of one's own on a unix socket and a port, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.path = folder / "v.sock"
        self.url = f"unix://{self.path}?db=3"
        self.port = free_port()

    def start(self, *options: str) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            [
                str(find_valkey().program),
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--unixsocket", str(self.path), "--dir", str(self.folder)),
                *("--save", "", "--appendonly", "no", *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        with self.client() as client:
            for _ in range(500):
                with suppress(redis.ConnectionError, redis.AuthenticationError):
                    client.ping()
                    return
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.01)
        raise AssertionError("Valkey did not start")

    def client(self, **options: Any) -> redis.Redis:
        """A plain client, to look from outside."""
        return redis.Redis(unix_socket_path=str(self.path), db=3, socket_timeout=5, **options)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(30)
            self.process = None


@pytest.fixture
def server() -> Iterator[PrivateServer]:
    with tempfile.TemporaryDirectory(prefix="tp-") as folder:
        one = PrivateServer(Path(folder))
        one.start()
        yield one
        one.kill()


async def test_prepared_call_is_run_in_its_turn(pipe: RedisPipe, redis_client: redis.Redis) -> None:
    push = LuaScript("return redis.call('RPUSH', KEYS[1], ARGV[1])")
    call = PreparedCall(push, before=(), prefix="list:", after=(), args_count=1)

    await pipe.execute("SCRIPT", "FLUSH")
    with pytest.raises(RedisReplyError, match="NOSCRIPT"):
        await pipe.call(call, "a", (b"0",), timeout_seconds=5)
    redis_client.script_load(push.source)
    sent = [pipe.call(call, "a", (b"%d" % n,), timeout_seconds=5) for n in range(3)]

    assert await asyncio.gather(*sent) == [1, 2, 3]
    assert redis_client.lrange("list:a", 0, -1) == [b"0", b"1", b"2"]


async def test_commands_return_their_replies(pipe: RedisPipe) -> None:
    assert await pipe.execute("SET", "a", b"\0\r\n\xff") == b"OK"
    assert await pipe.execute("GET", "a") == b"\0\r\n\xff"
    assert await pipe.execute("GET", "nothing") is None
    assert await pipe.execute("INCRBY", "n", 41) == 41
    assert await pipe.execute("INCRBYFLOAT", "n", 0.5) == b"41.5"
    assert await pipe.execute("HSET", "h", "f", "1", "g", "2") == 2
    assert await pipe.execute("HMGET", "h", "f", "x", "g") == [b"1", None, b"2"]


async def test_an_error_reply_is_raised_with_its_code(pipe: RedisPipe) -> None:
    await pipe.execute("SET", "a", "text")

    with pytest.raises(RedisReplyError, match="not an integer") as caught:
        await pipe.execute("INCR", "a")

    assert caught.value.code == "ERR"
    assert await pipe.execute("GET", "a") == b"text"


async def test_many_commands_give_errors_as_values(pipe: RedisPipe) -> None:
    replies = await pipe.execute_many([["SET", "a", "x"], ["LPUSH", "a", "y"], ["GET", "a"]])

    assert replies[0] == b"OK"
    assert isinstance(replies[1], RedisReplyError)
    assert replies[1].code == "WRONGTYPE"
    assert replies[2] == b"x"
    assert await pipe.execute_many([]) == []


async def test_a_script_is_loaded_where_the_server_does_not_know_it(pipe: RedisPipe) -> None:
    script = LuaScript(ECHO_SOURCE)
    await pipe.execute("SCRIPT", "FLUSH")

    first = await pipe.run_script(script, ["k"], ["v", 1])
    second = await pipe.run_script(script, ["k"], [b"w"])

    assert (first, second) == ([b"k", b"v"], [b"k", b"w"])
    assert await pipe.execute("SCRIPT", "EXISTS", script.sha) == [1]


async def test_an_error_inside_a_script_is_raised_once(pipe: RedisPipe) -> None:
    script = LuaScript("redis.call('INCR', KEYS[1]) return redis.error_reply('REFUSED no')")

    with pytest.raises(RedisReplyError) as caught:
        await pipe.run_script(script, ["runs"], [])

    assert caught.value.code == "REFUSED"
    assert await pipe.execute("GET", "runs") == b"1"


async def test_a_thousand_scripts_at_once_leave_in_few_writes(server: PrivateServer) -> None:
    pipe = RedisPipe(server.url, timeout_seconds=5)
    await pipe.start()
    script = LuaScript(ECHO_SOURCE)
    await pipe.run_script(script, ["k"], ["v"])
    before = await reads_by_server(pipe)

    replies = await asyncio.gather(
        *[pipe.run_script(script, ["k"], [str(number)]) for number in range(1_000)]
    )

    assert replies == [[b"k", str(number).encode()] for number in range(1_000)]
    # 90 KB in one write reach the server in reads of at most 16 KB each, not in one per command.
    assert await reads_by_server(pipe) - before < 30
    await pipe.stop()


async def reads_by_server(pipe: RedisPipe) -> int:
    stats = (await pipe.execute("INFO", "stats")).decode()
    line = next(line for line in stats.splitlines() if line.startswith("total_reads_processed:"))
    return int(line.partition(":")[2])


async def test_a_pause_of_the_server_ends_in_time_and_keeps_the_order(
    server: PrivateServer,
) -> None:
    pipe = RedisPipe(server.url, timeout_seconds=0.05)
    await pipe.start()
    await pipe.execute("SET", "a", "before")
    loop = asyncio.get_running_loop()
    with server.client() as outside:
        outside.execute_command("CLIENT", "PAUSE", 300, "ALL")

    begun_at = loop.time()
    with pytest.raises(RedisAway, match="in time"):
        await pipe.execute("GET", "a")
    waited = loop.time() - begun_at
    late = pipe.execute("ECHO", "late", timeout_seconds=5)

    assert 0.045 <= waited < 0.15
    assert await late == b"late"
    assert await pipe.execute("ECHO", "next") == b"next"
    await pipe.stop()


async def test_replies_stay_in_order_under_random_deadlines_and_cancelling(
    server: PrivateServer,
) -> None:
    dice = random.Random(20261121)
    pipe = RedisPipe(server.url, timeout_seconds=5)
    await pipe.start()
    busy = LuaScript("local t = redis.call('TIME')[2] for i = 1, 300000 do t = t + i end")
    outcomes = {"reply": 0, "away": 0, "cancelled": 0}

    async def ask(number: int, *, pause: float, seconds: float, cancel: float | None) -> None:
        await asyncio.sleep(pause)
        if number % 40 == 0:
            await pipe.run_script(busy, [], [])
            return
        waiting = pipe.execute("ECHO", number, timeout_seconds=seconds)
        if cancel is not None:
            asyncio.get_running_loop().call_later(cancel, waiting.cancel)
        try:
            assert await waiting == str(number).encode()
            outcomes["reply"] += 1
        except RedisAway:
            outcomes["away"] += 1
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1

    tasks = []
    for number in range(2_000):
        cancel = dice.choice((None, None, None, dice.random() * 0.005))
        seconds = dice.choice((0.0005, 0.002, 0.01, 5.0))
        tasks.append(ask(number, pause=dice.random() * 0.5, seconds=seconds, cancel=cancel))
    await asyncio.gather(*tasks)

    assert await pipe.execute("ECHO", "still in step") == b"still in step"
    assert min(outcomes.values()) > 0
    await pipe.stop()


async def test_a_killed_server_fails_what_is_pending_and_is_found_again(
    server: PrivateServer,
) -> None:
    seen: list[str] = []
    pipe = RedisPipe(server.url, timeout_seconds=5, on_connect=seen.append)
    await pipe.start()
    await until(lambda: len(seen) == 1)
    first_run = pipe.run_id
    with server.client() as outside:
        outside.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
    pending = [pipe.execute("GET", "a") for _ in range(3)]
    await asyncio.sleep(0)

    server.kill()
    results = await asyncio.gather(*pending, return_exceptions=True)
    await until(lambda: not pipe.is_connected)
    with pytest.raises(RedisAway, match="not connected"):
        await pipe.execute("GET", "a")
    server.start()
    await until(lambda: pipe.is_connected)

    assert [type(result) for result in results] == [RedisAway] * 3
    assert await pipe.execute("ECHO", "back") == b"back"
    await until(lambda: len(seen) == 2)
    assert seen == [first_run, pipe.run_id]
    assert pipe.run_id != first_run
    await pipe.stop()


async def test_a_lost_connection_to_a_living_server_comes_back_at_once(
    server: PrivateServer,
) -> None:
    pipe = RedisPipe(server.url, timeout_seconds=5)
    await pipe.start()
    run_id = pipe.run_id

    with server.client() as outside:
        outside.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await until(lambda: not pipe.is_connected)
    await until(lambda: pipe.is_connected)

    assert await pipe.execute("ECHO", "back") == b"back"
    assert pipe.run_id == run_id
    await pipe.stop()


async def test_a_server_that_is_away_at_the_start_is_found_later(server: PrivateServer) -> None:
    server.kill()
    pipe = RedisPipe(server.url, timeout_seconds=5)

    await pipe.start()
    assert not pipe.is_connected
    server.start()
    await until(lambda: pipe.is_connected)

    assert await pipe.execute("PING") == b"PONG"
    await pipe.stop()


async def test_a_frozen_server_is_given_up_and_found_when_it_thaws(server: PrivateServer) -> None:
    pipe = RedisPipe(
        server.url, timeout_seconds=0.02, connect_timeout_seconds=0.2, stalled_seconds=0.5
    )
    await pipe.start()
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    frozen_at = loop.time()

    async with asyncio.timeout(30):
        while pipe.is_connected:
            with pytest.raises(RedisAway):
                await pipe.execute("PING")
    given_up_at = loop.time()
    server.process.send_signal(signal.SIGCONT)
    await until(lambda: pipe.is_connected)

    # An answer that is late is no reason to leave, only one that is late for so long. How many
    # calls fit into that time is the machine's affair.
    assert given_up_at - frozen_at > 0.5
    assert await pipe.execute("ECHO", "thawed", timeout_seconds=5) == b"thawed"
    await pipe.stop()


async def test_too_many_pending_commands_are_refused(server: PrivateServer) -> None:
    pipe = RedisPipe(server.url, timeout_seconds=5, pending_max=10)
    await pipe.start()

    pending = [pipe.execute("ECHO", number) for number in range(10)]
    with pytest.raises(RedisAway, match="10 Redis commands are pending"):
        await pipe.execute("PING")
    with pytest.raises(RedisAway, match="10 Redis commands are pending"):
        await pipe.execute_many([["PING"]])

    assert await asyncio.gather(*pending) == [str(number).encode() for number in range(10)]
    assert await pipe.execute("PING") == b"PONG"
    await pipe.stop()


async def test_a_server_that_became_a_replica_counts_as_away(server: PrivateServer) -> None:
    pipe = RedisPipe(server.url, timeout_seconds=5)
    await pipe.start()
    with server.client() as outside:
        outside.execute_command("REPLICAOF", "127.0.0.1", 1)

        with pytest.raises(RedisAway, match="READONLY"):
            await pipe.execute("SET", "a", "1")
        outside.execute_command("REPLICAOF", "NO", "ONE")
    await until(lambda: pipe.is_connected)

    assert await pipe.execute("SET", "a", "1") == b"OK"
    await pipe.stop()


async def test_a_password_a_user_and_a_database_are_presented(server: PrivateServer) -> None:
    with server.client() as outside:
        outside.execute_command("ACL", "SETUSER", "worker", "on", ">p@ss word", "~*", "+@all")
        outside.config_set("requirepass", "other secret")
    url = f"redis://worker:p%40ss%20word@127.0.0.1:{server.port}/5"
    pipe = RedisPipe(url, timeout_seconds=5)
    await pipe.start()

    assert b"user=worker" in await pipe.execute("CLIENT", "INFO")
    assert b" db=5 " in await pipe.execute("CLIENT", "INFO")
    await pipe.stop()


async def test_a_wrong_password_is_no_connection(server: PrivateServer) -> None:
    with server.client() as outside:
        outside.config_set("requirepass", "secret")
    pipe = RedisPipe(f"redis://:wrong@127.0.0.1:{server.port}", timeout_seconds=5)

    await pipe.start()

    assert not pipe.is_connected
    await pipe.stop()


async def test_a_peer_that_does_not_speak_redis_is_no_connection() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    pipe = RedisPipe(f"redis://127.0.0.1:{port}", connect_timeout_seconds=0.5)

    await pipe.start()

    assert not pipe.is_connected
    await pipe.stop()
    listener.close()


async def test_stopping_fails_what_is_pending(server: PrivateServer) -> None:
    pipe = RedisPipe(server.url, timeout_seconds=5)
    await pipe.start()
    with server.client() as outside:
        outside.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
    pending = pipe.execute("PING")

    await pipe.stop()

    with pytest.raises(RedisAway):
        await pending
    with pytest.raises(RedisAway):
        await pipe.execute("PING")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress(host="h")),
        ("redis://h:7/2", RedisAddress(host="h", port=7, database=2)),
        ("redis://h/2?db=3", RedisAddress(host="h", database=3)),
        ("rediss://u:p%40@h", RedisAddress(host="h", is_tls=True, username="u", password="p@")),
        (
            "rediss://h?ssl_ca_certs=/ca.pem",
            RedisAddress(host="h", is_tls=True, ca_file="/ca.pem"),
        ),
        ("unix:///run/v.sock?db=4", RedisAddress(path="/run/v.sock", database=4)),
        ("unix://:pw@/run/v.sock", RedisAddress(path="/run/v.sock", password="pw")),
    ],
)
def test_a_url_is_read(url: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(url) == address


@pytest.mark.parametrize("url", ["http://h", "h:6379", "", "redis://h/x", "redis://h:port"])
def test_a_bad_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"Redis|[Pp]ort"):
        RedisPipe(url)


def test_an_address_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(RedisAddress.parse("redis://:hunter2@h"))
