"""Whether somebody can answer: upstreams in service, reachable, with credentials that open."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from django.db import Error

from billing.models import Upstream, UpstreamCredential
from turnpike.contracts.snapshots import credential_place
from turnpike.doctor.findings import Finding, fine, odd, wrong
from turnpike.env import Env
from turnpike.kernel import sealing

CONNECT_SECONDS_MAX = 5.0


def look_at_upstreams(variables: Env) -> Iterator[Finding]:
    """Each upstream that is in service."""
    try:
        upstreams = list(Upstream.objects.filter(is_enabled=True).order_by("name"))
        credentials = list(
            UpstreamCredential.objects.filter(upstream__in=upstreams, is_enabled=True)
        )
    except Error:
        return  # said already, of PostgreSQL itself
    if not upstreams:
        yield wrong("upstreams", "None is in service: nothing can be answered.")
    for upstream in upstreams:
        yield _connect(upstream)
    for credential in credentials:
        yield _open(credential, variables)
    if variables.simulator_control and any(not upstream.is_simulator for upstream in upstreams):
        yield wrong("upstreams", "SIMULATOR_CONTROL is on beside a real upstream: switch it off.")


def _connect(upstream: Upstream) -> Finding:
    subject = f"upstream {upstream.name}"
    parts = urlsplit(upstream.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS_MAX):
            pass
    except OSError as error:
        return wrong(subject, f"{parts.hostname}:{port} cannot be reached: {error}.")
    if upstream.is_simulator:
        return odd(subject, "The simulator answers: what comes back is made up.")
    return fine(subject, f"{parts.hostname}:{port} can be reached.")


def _open(credential: UpstreamCredential, variables: Env) -> Finding:
    subject = f"credential {credential.upstream.name}/{credential.name}"
    place = credential_place(credential.pk)
    try:
        sealing.unseal(credential.sealed, place=place, master_keys=variables.sealing_keys)
    except ValueError as error:
        return wrong(subject, str(error))
    return fine(subject, "It opens.")
