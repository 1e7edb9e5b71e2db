"""P10: real processes at once never pass a limit, and never spend what only one of them can."""

import asyncio
import json
import os
import subprocess
import sys
import time

import redis

from proxy.limiter.limiter import Limiter
from proxy.redis_cluster import make_link
from tests.proxy import limiter_crowd
from tests.proxy.limiter_world import ROOT, Asked, World, tenant_keys_free
from tests.support.redis_clients import connect

PROCESSES = 12
CREDIT_FOR = 200


def test_twelve_processes_pass_no_limit(redis_client: redis.Redis) -> None:
    world = World(client=redis_client, asked=limiter_crowd.SLOTTED)
    world.open_up(posted_micro=CREDIT_FOR * limiter_crowd.HOLD_MICRO + 999)
    path = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    command = [sys.executable, "-m", "tests.proxy.limiter_crowd", os.environ["REDIS_URL"]]
    crowd = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
        )
        for _ in range(PROCESSES)
    ]

    with connect(os.environ["REDIS_URL"], seconds=60) as patient:
        for _ in crowd:
            assert patient.blpop(["ready"], timeout=50) is not None
    started = time.monotonic()
    redis_client.rpush("go", *range(PROCESSES))
    reports = [json.loads(process.communicate(timeout=60)[0]) for process in crowd]
    elapsed_seconds = time.monotonic() - started

    assert sum(report["granted"] for report in reports) == CREDIT_FOR
    assert max(report["overlap"] for report in reports) == limiter_crowd.SLOTS
    assert world.held() == CREDIT_FOR * limiter_crowd.HOLD_MICRO
    assert redis_client.zcard("tp:{s0}:c:42:t") == 0
    rated = sum(report["rated"] for report in reports)
    burst = limiter_crowd.REQUESTS_PER_MINUTE
    assert burst <= rated <= burst + burst * elapsed_seconds / 60
    assert rated < PROCESSES * limiter_crowd.TRIES


async def test_fifty_parallel_requests_against_credit_for_five_admit_five(
    redis_client: redis.Redis,
) -> None:
    world = World(client=redis_client, asked=Asked())
    world.open_up(posted_micro=5_999)
    pipes = [make_link(os.environ["REDIS_URL"], timeout_seconds=10.0) for _ in range(5)]
    limiters = [Limiter(pipe, timeout_seconds=10.0) for pipe in pipes]
    await asyncio.gather(*(pipe.start() for pipe in pipes))
    specs = [world.spec(hold_micro=1_000) for _ in range(50)]

    answers = await asyncio.gather(
        *(limiters[number % 5].admit(spec) for number, spec in enumerate(specs))
    )

    assert sorted(answer.reason for answer in answers) == ["credit"] * 45 + ["ok"] * 5
    assert world.held() == 5_000
    granted = [spec for spec, answer in zip(specs, answers, strict=True) if answer.is_granted]
    await asyncio.gather(
        *(
            limiters[0].settle(spec, charges={}, hold_micro=1_000, event=b"{}", rank=3)
            for spec in granted
        )
    )
    assert (await limiters[1].admit(world.spec(hold_micro=1_000))).reason == "credit"
    world.publish(posted_micro=999, version=2, ranks={spec.rid: 3 for spec in granted})
    assert world.held() == 0
    assert tenant_keys_free(redis_client)
    await asyncio.gather(*(pipe.stop() for pipe in pipes))
