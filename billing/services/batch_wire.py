"""HTTP of message batches: an upstream's own batches, and single items through the data plane.

Every call has a deadline and a bound on what it reads. What is raised says whether the other side
may have begun to work, for then nothing may simply be sent again.
"""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

PATH = "/v1/messages/batches"
CONNECT_SECONDS = 10.0
CALL_SECONDS = 120.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024
LINE_BYTES_MAX = 64 * 1024 * 1024
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
LISTED_MAX = 100


class Unsent(Exception):
    """It surely did not begin: no connection, or a refusal that says so."""


class Unclear(Exception):
    """Nobody knows whether it began."""


class Refused(Exception):
    """The other side answered with a refusal of what was asked."""

    def __init__(self, status: int, payload: bytes) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.payload = payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Whom to call, and with which headers."""

    base_url: str
    headers: Mapping[str, str]

    def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = CALL_SECONDS,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> Answer:
        """One exchange. Raises Unsent or Unclear when there is no whole answer."""
        with self._exchange(method, path, body, headers, seconds) as response:
            payload = response.read(bytes_max + 1)
            if len(payload) > bytes_max:
                raise Unclear("The answer is too large.")
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                payload=payload,
            )

    def lines(self, path: str, *, seconds: float = CALL_SECONDS) -> Iterator[bytes]:
        """The lines of an answer as they come. Raises Refused, Unsent or Unclear."""
        with self._exchange("GET", path, None, None, seconds) as response:
            if response.status != http.client.OK:
                raise Refused(response.status, response.read(ANSWER_BYTES_MAX))
            while line := response.readline(LINE_BYTES_MAX + 1):
                if len(line) > LINE_BYTES_MAX:
                    raise Unclear("A line is too long.")
                if line.strip():
                    yield line

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        seconds: float,
    ) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self.base_url)
        connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            try:
                connection.connect()
            except OSError as error:
                raise Unsent(f"It cannot be reached: {type(error).__name__}.") from error
            connection.sock.settimeout(seconds)
            sent = {**self.headers, **(headers or {})}
            try:
                connection.request(method, parts.path.rstrip("/") + path, body=body, headers=sent)
                yield connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise Unclear(f"The exchange broke: {type(error).__name__}.") from error
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamBatch:
    """What an upstream says of a batch of its own."""

    ident: str
    is_ended: bool
    count: int
    created_at: str


class UpstreamBatches:
    """The batches of one upstream account."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def create(self, body: bytes) -> UpstreamBatch:
        """Order a batch."""
        return _batch_of(_checked(self._server.call("POST", PATH, body=body)))

    def retrieve(self, ident: str) -> UpstreamBatch:
        """How it stands."""
        return _batch_of(_checked(self._server.call("GET", _path_of(ident))))

    def cancel(self, ident: str) -> None:
        """Ask that it begins nothing more."""
        _checked(self._server.call("POST", _path_of(ident) + "/cancel", body=b""))

    def newest(self) -> list[UpstreamBatch]:
        """The last hundred, the newest first."""
        found = _checked(self._server.call("GET", f"{PATH}?limit={LISTED_MAX}"))
        rows = found.get("data")
        return [_batch_of(row) for row in rows] if isinstance(rows, list) else []

    def results(self, ident: str) -> Iterator[bytes]:
        """The lines of its results."""
        return self._server.lines(_path_of(ident) + "/results")


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=context)
    return http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)


def _path_of(ident: str) -> str:
    return f"{PATH}/{quote(ident, safe='')}"


def _checked(answer: Answer) -> dict[str, Any]:
    """The answer's object. Raises Refused for 4xx, Unsent for 429 and 529, Unclear for the rest."""
    if answer.status in (429, 503, 529):
        raise Unsent(f"status {answer.status}")
    if 400 <= answer.status < 500:
        raise Refused(answer.status, answer.payload)
    try:
        found = json.loads(answer.payload)
    except (ValueError, RecursionError) as error:
        raise Unclear("The answer is no JSON.") from error
    if answer.status != http.client.OK or not isinstance(found, dict):
        raise Unclear(f"status {answer.status}")
    return found


def _batch_of(found: Any) -> UpstreamBatch:
    if not isinstance(found, dict) or not isinstance(found.get("id"), str) or not found["id"]:
        raise Unclear("The answer is no message batch.")
    counts = found.get("request_counts")
    numbers = counts.values() if isinstance(counts, dict) else ()
    return UpstreamBatch(
        ident=found["id"],
        is_ended=found.get("processing_status") == "ended",
        count=sum(number for number in numbers if isinstance(number, int)),
        created_at=str(found.get("created_at") or ""),
    )
