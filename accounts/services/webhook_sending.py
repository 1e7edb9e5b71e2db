"""send: one POST to an address that a tenant chose, and to nowhere inside.

The name is resolved once, every address that it has must be public, and the connection goes to an
address that was checked: a name that changes its mind in between changes nothing. No redirects are
followed, a deadline ends the whole exchange, and of the answer a bounded part is read.
"""

import http.client
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

from accounts.models import RESPONSE_CHARACTERS_MAX, URL_LENGTH_MAX
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

SECONDS_MAX = 5.0
ANSWER_BYTES_MAX = 64 * 1024
PORTS = {"https": 443, "http": 80}
UNPRIVILEGED = 1_024
# What counts as public and is not: transitions into IPv4 and a cloud's own service.
REFUSED_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in ("2001::/23", "2002::/16", "168.63.129.16/32", "192.88.99.0/24", "192.0.0.0/24")
)
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")

Resolve = Callable[[str, int], list[str]]


class _Failed(Exception):
    """No answer; says why in one word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: a status, or the word of why there is none."""

    status: int | None
    error: str
    body: str
    took_ms: int

    @property
    def is_success(self) -> bool:
        """Whether the receiver took the event: any 2xx."""
        return self.status is not None and 200 <= self.status < 300


def check_url(url: str, *, allows_loopback: bool = False) -> SplitResult:
    """The parts of an address that events may go to. Raises InvalidInput.

    What its name resolves to is checked whenever something is sent.
    """
    if not 0 < len(url) <= URL_LENGTH_MAX or not url.isascii() or any(c <= " " for c in url):
        raise InvalidInput(
            f"url must be an address of at most {URL_LENGTH_MAX} plain characters.", field="url"
        )
    try:
        parts = urlsplit(url)
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError as error:
        raise InvalidInput("url is not an address.", field="url") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and allows_loopback):
        raise InvalidInput("url must begin with https://.", field="url")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise InvalidInput("url must name a host, without a user or password.", field="url")
    if parts.fragment or "\\" in url:
        raise InvalidInput("url must have no fragment and no backslash.", field="url")
    if port < UNPRIVILEGED and port != PORTS[parts.scheme]:
        raise InvalidInput("url must use port 443 or one from 1024 on.", field="url")
    if _is_address(parts.hostname) and not is_allowed(
        parts.hostname, allows_loopback=allows_loopback
    ):
        raise InvalidInput("url must not lead to an internal address.", field="url")
    return parts


def is_allowed(address: str, *, allows_loopback: bool = False) -> bool:
    """Whether something may be sent to an IP address: to public ones alone."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return allows_loopback
    if isinstance(ip, ipaddress.IPv6Address) and ip not in PUBLIC_IPV6:
        return False
    if any(ip in network for network in REFUSED_NETWORKS if network.version == ip.version):
        return False
    return ip.is_global and not (
        ip.is_private or ip.is_multicast or ip.is_reserved or ip.is_unspecified
    )


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, as the system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def send(
    *,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    allows_loopback: bool = False,
    resolve: Resolve = resolve,
    seconds: float = SECONDS_MAX,
) -> Answer:
    """POST a body and read a bounded answer; never raises for what the other side does."""
    began = clock.monotonic_seconds()
    status, error, text = None, "", ""
    try:
        status, text = _exchange(
            url,
            headers,
            body,
            allows_loopback=allows_loopback,
            resolve=resolve,
            ends_at=began + seconds,
        )
    except _Failed as failure:
        error = str(failure)
    except (InvalidInput, UnicodeError):
        error = "url"
    except TimeoutError:
        error = "timeout"
    except ssl.SSLError:
        error = "tls"
    except http.client.HTTPException:
        error = "protocol"
    except OSError:
        error = "connection"
    took = clock.monotonic_seconds() - began
    # Who is cut off at the deadline sees a closed connection, or half an answer.
    if took >= seconds:
        status, error, text = None, "timeout", ""
    return Answer(status=status, error=error, body=text, took_ms=round(took * 1_000))


def _exchange(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    allows_loopback: bool,
    resolve: Resolve,
    ends_at: float,
) -> tuple[int, str]:
    parts = check_url(url, allows_loopback=allows_loopback)
    host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    address = _checked_address(host, port, allows_loopback=allows_loopback, resolve=resolve)
    raw = socket.create_connection((address, port), timeout=_left(ends_at))
    with _cut_at(raw, ends_at):
        line = _protect(raw, host) if parts.scheme == "https" else raw
        with line:
            return _post(line, parts, headers, body, port=port)


def _checked_address(host: str, port: int, *, allows_loopback: bool, resolve: Resolve) -> str:
    try:
        addresses = resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise _Failed("name") from error
    # One that leads inside spoils them all: who controls the name chooses which one we take.
    if not addresses or not all(
        is_allowed(address, allows_loopback=allows_loopback) for address in addresses
    ):
        raise _Failed("address")
    return addresses[0]


def _protect(raw: socket.socket, host: str) -> socket.socket:
    try:
        return _tls().wrap_socket(raw, server_hostname=host)
    except BaseException:
        raw.close()
        raise


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _post(
    line: socket.socket, parts: SplitResult, headers: Mapping[str, str], body: bytes, *, port: int
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(str(parts.hostname), port)
    connection.default_port = PORTS[parts.scheme]
    connection.auto_open = 0
    connection.sock = line
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("POST", path, body=body, headers={**headers, "connection": "close"})
    response = connection.getresponse()
    text = response.read(ANSWER_BYTES_MAX).decode("utf-8", "replace")
    # What PostgreSQL cannot keep as text says nothing to a reader either.
    return response.status, text.replace("\x00", "")[:RESPONSE_CHARACTERS_MAX]


@contextmanager
def _cut_at(raw: socket.socket, ends_at: float) -> Iterator[None]:
    """End a connection at the deadline, however slowly the other side drips."""
    # TLS takes the socket over; the duplicate still reaches the same connection.
    handle = socket.socket(fileno=os.dup(raw.fileno()))
    timer = threading.Timer(_left(ends_at), _shut, [handle])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        handle.close()


def _shut(handle: socket.socket) -> None:
    try:
        handle.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _left(ends_at: float) -> float:
    left = ends_at - clock.monotonic_seconds()
    if left <= 0:
        raise _Failed("timeout")
    return left


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def headers_of(signed: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a delivery: what was signed, and who sends."""
    return {
        **{name: str(value) for name, value in signed.items()},
        "content-type": "application/json",
        "user-agent": "Turnpike-Webhooks/1",
        "accept": "*/*",
    }
