"""One HTTP/1.1 connection of a client: uvicorn's protocol with a leaner way through a request.

What differs: one timer guards the idle connection instead of one a request, a head that is that of
the last request is not parsed again, and an answer leaves as `http_cycle` says. Together that
halves what uvicorn's own protocol takes of a 1 KB request.
"""

import asyncio
import logging
from collections import deque
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.asgi import App, Scope
from proxy.http_cycle import BODY_IN_SCOPE, Cycle
from proxy.known_head import KnownHead, learn
from proxy.turn_writes import with_turn_writes

logger = logging.getLogger("uvicorn.error")

# The headers by name, of repeated ones the last.
HEADERS_IN_SCOPE = "turnpike.headers"
# What was made of the same headers before, where the connection's last request had the same.
MEMO_IN_SCOPE = "turnpike.memo"
_NOT_COMMON = frozenset(("headers", "state", BODY_IN_SCOPE, HEADERS_IN_SCOPE))
# So many heads that were of no use again end a connection's attempts to know the next one.
LEARNINGS_MAX = 8
# A timer so late means that the loop was held up; then what has arrived is read before an end.
STALLED_SECONDS = 0.1
LAST_LOOK_SECONDS = 0.05


class HttpProtocol(HttpToolsProtocol):
    """The connection: parses requests, runs one at a time, keeps those that follow in order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle: Any = None  # the newest request: the one that body bytes belong to
        self.pipeline: Any = deque()
        # Calling an object takes longer; the data plane's knows a shorter way still.
        app = cast(Any, self.app)
        self._asgi_app: App = getattr(app, "respond", None) or app.__call__
        self._running: Cycle | None = None
        self._is_draining = False
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_lines = b""
        self._scope: dict[str, Any] = {}
        self._is_between = True  # requests: the parser has no part of one
        self._begun_count = 0
        self._known_head: KnownHead | None = None
        self._learnings_left = LEARNINGS_MAX

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(with_turn_writes(transport, self.loop))
        self._scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
        }

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: the app that runs is told, those that wait never start."""
        self.connections.discard(self)
        if self._running is not None:
            self._running.disconnected = True
            self._running.wake()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self.cycle = self._running = self._idle_timer = None
        self.pipeline.clear()
        self.parser = None  # type: ignore[assignment]  # as uvicorn does: it refers to us

    def begin_drain(self) -> None:
        """The server stops soon: whatever is asked from now on is answered, and then closed."""
        self._is_draining = True

    def data_received(self, data: bytes) -> None:
        """Bytes of a request came in."""
        self._idle_since = None
        known = self._known_head
        if known is not None and self._running is None and self._is_between:
            found = None if self._is_draining else known.read(data)
            if found is not None:
                length, body = found
                self._begin_known(known, length, body)
                return
        begun_count = self._begun_count if self._is_between else -1
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()
        except httptools.HttpParserError:
            logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
        else:
            if self._is_between and self._begun_count == begun_count + 1 and self._learnings_left:
                self._learn_head(data)

    def _learn_head(self, data: bytes) -> None:
        """One whole request came in one read: keep its head, for more like it.

        A connection that brings another head each time, one behind a proxy say, soon stops trying.
        """
        self._learnings_left -= 1
        scope, self._known_head = self.cycle.scope, None
        if not self.cycle.keep_alive or BODY_IN_SCOPE not in scope:
            return
        common = {name: value for name, value in scope.items() if name not in _NOT_COMMON}
        self._known_head = learn(
            data,
            scope=common,
            headers=list(self.headers),
            fields=dict(self.headers),
            body=scope[BODY_IN_SCOPE],
        )

    def _begin_known(self, known: KnownHead, length: bytes, body: bytes) -> None:
        """A whole request came whose head is known: the parser need not see it."""
        self._learnings_left = LEARNINGS_MAX
        scope = known.scope.copy()
        if self.app_state:
            scope["state"] = self.app_state.copy()
        scope["headers"] = headers = known.headers.copy()
        scope[HEADERS_IN_SCOPE] = fields = known.fields.copy()
        headers[known.length_at] = (b"content-length", length)
        fields[b"content-length"] = length
        scope[MEMO_IN_SCOPE] = known.memo
        cycle = self.cycle = Cycle(
            scope,
            self.transport,
            self.flow,
            self._lines_of_defaults(),
            self.on_response_complete,
            keep_alive=True,
            expects_continue=False,
        )
        cycle.take_whole(body)
        self._start(cycle)

    def on_message_begin(self) -> None:
        """A request begins: what its scope shares with all others of the connection is copied."""
        self._is_between = False
        self._begun_count += 1
        self.url = b""
        self.headers = []
        scope = self._scope.copy()
        scope["headers"] = self.headers
        scope["state"] = self.app_state.copy()
        self.scope = cast(Any, scope)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came in; those that are ours to act on are looked at when all are there."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is complete: run the app, or queue behind the request that runs."""
        scope = cast(Scope, self.scope)
        parser = self.parser
        headers = scope[HEADERS_IN_SCOPE] = dict(self.headers)
        version = parser.get_http_version()
        scope["http_version"] = version
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"], scope["raw_path"], scope["query_string"] = _split_url(self.url)
        cycle = self.cycle = Cycle(
            scope,
            self.transport,
            self.flow,
            self._lines_of_defaults(),
            self.on_response_complete,
            keep_alive=(version != "1.0" and not self._is_draining and parser.should_keep_alive()),
            expects_continue=headers.get(b"expect", b"").lower() == b"100-continue",
        )
        if self._running is None:
            self._start(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.append(cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of the newest request's body; after its answer nobody wants it any more."""
        if not self.cycle.response_complete:
            self.cycle.take(body)

    def on_message_complete(self) -> None:
        """The newest request is whole."""
        self._is_between = True
        if not self.cycle.response_complete:
            self.cycle.finish_body()

    def on_response_complete(self) -> None:
        """An answer is out: on with the next request, or wait for one, but not forever."""
        self.server_state.total_requests += 1
        self._running = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start(self.pipeline.popleft())
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._end_idle)

    def _start(self, cycle: Cycle) -> None:
        self._running = cycle
        # Named, since a name that counts up takes as long to write as all else about a task.
        run = cycle.run(self._asgi_app, self.tasks)
        cycle.task = asyncio.Task(run, loop=self.loop, name="request")
        self.tasks.add(cycle.task)

    def _end_idle(self) -> None:
        """Close what has been idle for too long; look again later where a request came between."""
        self._idle_timer = None
        if self._idle_since is None:
            return
        now = self.loop.time()
        left_seconds = self._idle_since + self.timeout_keep_alive - now
        if left_seconds < -STALLED_SECONDS:
            # The process stood still: a request may lie there unread, and closing would reset it.
            left_seconds = LAST_LOOK_SECONDS
            self._idle_since = now + left_seconds - self.timeout_keep_alive
        if left_seconds > 0:
            self._idle_timer = self.loop.call_later(left_seconds, self._end_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    def _lines_of_defaults(self) -> bytes:
        """The server's own headers as lines; the server makes new ones each second."""
        headers = self.server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._default_lines


@lru_cache(maxsize=1_024)  # most requests of a worker go to a few addresses
def _split_url(url: bytes) -> tuple[str, bytes, bytes]:
    """Path as text and as it came, and query. The usual form is split at once.

    Others are what the parser makes of them.
    """
    if url.startswith(b"/") and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        raw_path, query = parsed.path or b"/", parsed.query or b""
    path = raw_path.decode("ascii")
    return unquote(path) if "%" in path else path, raw_path, query
