"""The gunicorn worker class: uvicorn with httptools and uvloop."""

import asyncio
import gc
import signal
import socket
import sys
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from proxy.http_protocol import HttpProtocol

# Cancelling what still runs is left some seconds before gunicorn kills the worker.
CANCEL_SECONDS = 3
ACCEPTED_SECONDS = 0.3
# Longer than nginx (60 s) and the usual clients keep an idle connection: whoever sends a request
# over one while it is being closed here loses it.
IDLE_SECONDS = 75
GC_THRESHOLDS = (20_000, 20, 50)


class DrainingServer(Server):
    """A server that tells its app when it stops taking connections."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, serve those that were just taken, then wait for what runs."""
        begin_drain = getattr(self.config.app, "begin_drain", None)
        if begin_drain is not None:
            begin_drain()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.begin_drain()
        # A client whose connection was accepted a moment ago is about to send its request.
        await asyncio.sleep(ACCEPTED_SECONDS)
        await super().shutdown(sockets)


class Worker(UvicornWorker):  # type: ignore[misc]  # the package ships no types
    """Runs the data plane, the control plane, or both on one port."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": HttpProtocol,
        "lifespan": "on",
        "ws": "none",
        "interface": "asgi3",
        # Nothing sets these headers before us but proxies that TRUSTED_PROXIES names.
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "timeout_keep_alive": IDLE_SECONDS,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config.timeout_graceful_shutdown = max(1, self.cfg.graceful_timeout - CANCEL_SECONDS)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGQUIT, self.handle_exit, signal.SIGQUIT, None
        )
        # What was loaded at start lives as long as the process: collections need not walk it. The
        # path of a request makes no cycles, so they need not come every few requests either (they
        # took 6 % of the time).
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
