"""Which event loops the data plane's tests run on, and the upstream client they share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from proxy.upstreams.client import UpstreamClient
from tests.proxy.raw_server import until

# What speaks to sockets itself must do so on both loops: they differ in when they tell of a close.
ON_BOTH_LOOPS = frozenset(
    ("test_client.py", "test_client_failures.py", "test_client_tls.py", "test_redis_pipe.py")
)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """uvloop, which production has, and beside it asyncio's own where both must do."""
    if item.path.name in ON_BOTH_LOOPS:
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def upstream_client() -> AsyncIterator[UpstreamClient]:
    """A client whose connections are all closed at the end."""
    one = UpstreamClient(connections_max=8, idle_seconds=60)
    yield one
    await one.close()
    await until(lambda: one.open_connections == 0)
