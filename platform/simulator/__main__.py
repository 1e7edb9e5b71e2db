"""Run the simulator: python -m simulator --port 8001."""

import argparse
import asyncio

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simulator.exchange import ABORT


class EagerProtocol(HttpToolsProtocol):
    """Counts a chunk as gone only when the system has all of it: the buffer's mark is zero."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.transport.set_write_buffer_limits(high=0)

    def on_message_begin(self) -> None:
        """Give the app a way to hang up, which ASGI has not."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}


def main() -> None:
    """Serve until SIGTERM or SIGINT, without a word."""
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8001, help="the port to listen on")
    arguments = parser.parse_args()
    uvicorn.run(
        "simulator.app:app",
        host=arguments.host,
        port=arguments.port,
        http=EagerProtocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        backlog=4_096,
    )


if __name__ == "__main__":
    main()
