"""probe_upstream: asks an upstream something that costs nothing, as a gateway would."""

import http.client
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from billing.models.upstreams import Upstream
from turnpike.contracts.snapshots import credential_place
from turnpike.env import env
from turnpike.kernel import clock, sealing

PROBE_SECONDS_MAX = 10.0
ANSWER_BYTES_MAX = 1024 * 1024
PATH = "/v1/models?limit=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What came back. `detail` is in our own words: never the upstream's, never a secret."""

    credential: str
    is_ok: bool
    http_status: int | None
    seconds: float
    detail: str


def probe_upstream(upstream: Upstream) -> list[Probe]:
    """Ask with each credential in use; without one, once without."""
    rows = list(upstream.credentials.filter(is_enabled=True).order_by("pk"))
    probes = []
    for row in rows:
        try:
            secret = sealing.unseal(
                row.sealed, place=credential_place(row.pk), master_keys=env().sealing_keys
            )
        except sealing.CannotOpen:
            probes.append(_failed(row.name, "No known master key opens the credential."))
            continue
        probes.append(_probe(upstream, row.name, secret))
    return probes or [_probe(upstream, "", "")]


def _probe(upstream: Upstream, name: str, secret: str) -> Probe:
    begun_at = clock.monotonic_seconds()
    try:
        status = _ask(upstream, secret)
    except (OSError, http.client.HTTPException) as error:
        return _failed(name, f"It cannot be reached: {type(error).__name__}.")
    seconds = clock.monotonic_seconds() - begun_at
    return Probe(
        credential=name,
        is_ok=status < 400,
        http_status=status,
        seconds=round(seconds, 3),
        detail=_words(status),
    )


def _ask(upstream: Upstream, secret: str) -> int:
    parts = urlsplit(upstream.base_url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=PROBE_SECONDS_MAX, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=PROBE_SECONDS_MAX)
    headers = {"anthropic-version": "2023-06-01"}
    if secret and upstream.kind == Upstream.Kind.OPENAI:
        headers["authorization"] = f"Bearer {secret}"
    elif secret:
        headers["x-api-key"] = secret
    try:
        connection.request("GET", parts.path.rstrip("/") + PATH, headers=headers)
        answer = connection.getresponse()
        answer.read(ANSWER_BYTES_MAX)
        return answer.status
    finally:
        connection.close()


def _words(status: int) -> str:
    if status < 400:
        return "It answers and takes the credential."
    if status in {401, 403}:
        return "It refuses the credential."
    if status == 404:
        return "It answers, and has no list of models."
    return f"It answers with status {status}."


def _failed(name: str, detail: str) -> Probe:
    return Probe(credential=name, is_ok=False, http_status=None, seconds=0.0, detail=detail)
