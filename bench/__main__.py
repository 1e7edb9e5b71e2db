"""Compare the data plane's CPU with nginx's. python -m bench [--json]"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from bench.nginx import find_nginx, nginx_command
from bench.plane import (
    MODEL,
    Secrets,
    make_valkey,
    plane_command,
    plane_environment,
    publish,
)
from bench.processes import LOAD_SECONDS_MAX, cpu_us, free_ports, listens_on, running, send_load
from turnpike.embedded.choose_python import probe

OURS, NGINX = "turnpike", "nginx"
PROBE_SECONDS_MAX = 3
SHORT_CHUNKS, LONG_CHUNKS = 20, 420
# What the next step of the design asks for, and what this one must keep.
LIMITS = {"json_1kb": 8.0, "sse_chunk": 3.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One load: how many requests of which body over how many connections."""

    name: str
    requests: int
    connections: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One of the two that are compared."""

    port: int
    process: psutil.Process


def body_of(*, prompt_bytes: int, max_tokens: int = 1_024, is_stream: bool = False) -> str:
    """A Messages request; its text makes it as long as wanted."""
    document: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "x"}],
        "stream": is_stream,
    }
    missing = prompt_bytes - len(json.dumps(document))
    document["messages"][0]["content"] = ("Which lane is mine? " * (missing // 20 + 1))[:missing]
    return json.dumps(document, separators=(",", ":"))


def cases(scale: float) -> list[Case]:
    """The four loads of a round."""
    streams = {
        name: body_of(prompt_bytes=1_000, max_tokens=chunks, is_stream=True)
        for name, chunks in (("sse_short", SHORT_CHUNKS), ("sse_long", LONG_CHUNKS))
    }
    return [
        Case(
            name="json_1kb",
            requests=int(4_000 * scale),
            connections=16,
            body=body_of(prompt_bytes=1_000),
        ),
        Case(
            name="json_100kb",
            requests=int(800 * scale),
            connections=16,
            body=body_of(prompt_bytes=100_000),
        ),
        Case(name="sse_short", requests=64, connections=32, body=streams["sse_short"]),
        Case(name="sse_long", requests=64, connections=32, body=streams["sse_long"]),
    ]


@contextmanager
def both_running(folder: Path, program: str) -> Iterator[tuple[dict[str, Gateway], psutil.Process]]:
    """nginx and the data plane before one static upstream, and the Valkey that is not counted."""
    names = (OURS, NGINX, "upstream")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    secrets = Secrets.make()
    HEADERS["x-api-key"] = secrets.api_key
    valkey = make_valkey(folder / "state")
    with ExitStack() as stack:
        start = stack.enter_context
        upstream = [sys.executable, "-m", "bench.upstream", str(ports["upstream"])]
        ready = listens_on(ports["upstream"])
        start(running(upstream, is_ready=ready, log=folder / "upstream.log"))
        store = start(
            running(valkey.command(), is_ready=valkey.is_ready, log=folder / "valkey.log")
        )
        with redis.Redis.from_url(valkey.url()) as client:
            publish(client, secrets=secrets, upstream_port=ports["upstream"])
        poster = [sys.executable, "-m", "bench.poster", valkey.url()]
        start(running(poster, is_ready=lambda: True, log=folder / "poster.log"))
        environment = plane_environment(
            secrets=secrets, redis_url=valkey.url(), state=folder / "state"
        )
        commands = {
            OURS: plane_command(ports[OURS]),
            NGINX: nginx_command(
                program, folder=folder, port=ports[NGINX], upstream_port=ports["upstream"]
            ),
        }
        gateways = {}
        for name, command in commands.items():
            process = start(
                running(
                    command,
                    environment=environment,
                    is_ready=_ready(ports[name]),
                    log=folder / f"{name}.log",
                )
            )
            gateways[name] = Gateway(port=ports[name], process=process)
        yield gateways, store


HEADERS = {"anthropic-version": "2023-06-01", "content-type": "application/json"}


def _ready(port: int) -> Callable[[], bool]:
    listens = listens_on(port)
    order = {"port": port, "requests": 1, "connections": 1, "body": body_of(prompt_bytes=500)}

    def probe() -> bool:
        if not listens():
            return False
        try:
            send_load({**order, "headers": HEADERS, "seconds_max": PROBE_SECONDS_MAX})
        except RuntimeError:
            return False
        return True

    return probe


def measure(gateway: Gateway, case: Case, store: psutil.Process) -> tuple[float, float]:
    """CPU microseconds per request: of the gateway, and of Valkey beside it."""
    order = {
        "port": gateway.port,
        "requests": case.requests,
        "connections": case.connections,
        "body": case.body,
        "headers": HEADERS,
        "seconds_max": LOAD_SECONDS_MAX,
    }
    before, store_before = cpu_us(gateway.process), cpu_us(store)
    send_load(order)
    spent, store_spent = cpu_us(gateway.process) - before, cpu_us(store) - store_before
    return spent / case.requests, store_spent / case.requests


def run(*, rounds: int, scale: float, program: str) -> dict[str, Any]:
    """All rounds, in each of which the two take turns."""
    samples: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="tb-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with both_running(folder, program) as (gateways, store):
            # The first round warms caches, connections and interpreters.
            for number in range(rounds + 1):
                for case in cases(scale if number else scale / 4):
                    for who, gateway in gateways.items():
                        own, stored = measure(gateway, case, store)
                        if number:
                            samples.setdefault((who, case.name), []).append(own)
                            samples.setdefault((f"valkey for {who}", case.name), []).append(stored)
    return _summary(samples)


def _summary(samples: Mapping[tuple[str, str], list[float]]) -> dict[str, Any]:
    """Medians over the rounds: of each cost, and of the two costs' ratio within a round.

    What a machine does beside it changes from second to second, and meets both of a round.
    """
    rounds = {who: _rounds_of(samples, who) for who in (NGINX, OURS)}
    figures = {
        who: {name: statistics.median(values) for name, values in costs.items()}
        for who, costs in rounds.items()
    }
    ratios = {
        name: statistics.median(
            ours / nginx for ours, nginx in zip(costs, rounds[NGINX][name], strict=True)
        )
        for name, costs in rounds[OURS].items()
    }
    return {
        "interpreter": interpreter(),
        "cpu_us": figures,
        "ratios": ratios,
        "limits": LIMITS,
        "is_within_limits": all(ratios[name] <= limit for name, limit in LIMITS.items()),
        "valkey_us_per_json_1kb": statistics.median(samples[f"valkey for {OURS}", "json_1kb"]),
    }


def _rounds_of(samples: Mapping[tuple[str, str], list[float]], who: str) -> dict[str, list[float]]:
    """Microseconds for each request and for each chunk, by round."""
    streams = zip(samples[who, "sse_short"], samples[who, "sse_long"], strict=True)
    chunks = LONG_CHUNKS - SHORT_CHUNKS
    return {
        "json_1kb": samples[who, "json_1kb"],
        "json_100kb": samples[who, "json_100kb"],
        "sse_chunk": [(long - short) / chunks for short, long in streams],
    }


def interpreter() -> dict[str, Any]:
    """Which build of Python ran: an optimised one takes a seventh less, so ratios differ by it."""
    python = probe(sys.executable)
    return {
        "version": platform.python_version(),
        "prefix": sys.base_prefix,
        "is_optimized": python is not None and python.is_optimized,
    }


def table(result: Mapping[str, Any]) -> str:
    """The result for people."""
    names = {
        "json_1kb": "1 KB JSON request",
        "json_100kb": "100 KB JSON request",
        "sse_chunk": "SSE chunk",
    }
    lines = [f"{'CPU in us per':22}{'nginx':>10}{'turnpike':>10}{'ratio':>8}{'limit':>8}"]
    for name, title in names.items():
        nginx, ours = (result["cpu_us"][who][name] for who in (NGINX, OURS))
        limit = f"{LIMITS[name]:.0f}" if name in LIMITS else "-"
        lines.append(f"{title:22}{nginx:10.1f}{ours:10.1f}{result['ratios'][name]:8.1f}{limit:>8}")
    lines.append(
        f"Valkey used {result['valkey_us_per_json_1kb']:.1f} us more per 1 KB request of ours."
    )
    python = result["interpreter"]
    way = "built with its optimisations" if python["is_optimized"] else "not optimised"
    lines.append(f"Python {python['version']} of {python['prefix']}, {way}.")
    return "\n".join(lines)


def main() -> int:
    """Measure and print. 0 where there is no nginx to compare with; 1 beyond the limits."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=7, help="how many rounds to take medians of")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="a factor for the number of requests"
    )
    arguments = parser.parse_args()
    program = find_nginx()
    if program is None:
        sys.stdout.write('{"skipped": "nginx is not installed"}\n' if arguments.json else _NO_NGINX)
        return 0
    result = run(rounds=arguments.rounds, scale=arguments.scale, program=program)
    sys.stdout.write((json.dumps(result) if arguments.json else table(result)) + "\n")
    return 0 if result["is_within_limits"] else 1


_NO_NGINX = "Skipped: nginx is not installed, and the figures mean nothing without it.\n"

if __name__ == "__main__":
    sys.exit(main())
