"""Operators and their upstreams: what the API takes and shows, the audit rows, the master keys."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from rest_framework.test import APIClient

from accounts.models import AuditEvent
from billing.models.upstreams import Route, Upstream, UpstreamCredential
from billing.services.catalog import import_catalog
from billing.services.upstreams import add_upstream, set_credential
from billing.snapshots import plane_snapshot
from tests.accounts.factories import client_of, make_tenant, make_user, signed_in
from turnpike.contracts.snapshots import credential_place
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import sealing

pytestmark = pytest.mark.django_db

PATH = "/api/v1/operator/upstreams"
SECRET = "sk-ant-very-secret-credential-9Zx7"
WHY = {"reason": "capacity"}
FIRST_KEY = os.environ["MASTER_KEYS"].partition(":")[0]


@pytest.fixture
def staff() -> APIClient:
    """An operator of the platform."""
    return signed_in(make_user(is_staff=True))


@pytest.fixture
def upstream() -> Upstream:
    """An upstream with a credential and routes."""
    import_catalog()
    return add_upstream(
        name="first", kind="anthropic", base_url="https://api.example.com", credential=SECRET
    )


def audits() -> list[AuditEvent]:
    with platform_scope("test"):
        return list(AuditEvent.objects.filter(target__startswith="upstream").order_by("pk"))


def send(client: APIClient, method: str, path: str, body: Any) -> Any:
    return getattr(client, method)(PATH + path, body, format="json")


def test_an_operator_adds_an_upstream_and_its_secret_is_never_shown(staff: APIClient) -> None:
    import_catalog()
    body = {
        "name": "second",
        "kind": "anthropic",
        "base_url": "https://api.example.com",
        "secret": SECRET,
        "weight": 3,
        "priority": 2,
        "concurrency": 50,
        **WHY,
    }

    made = send(staff, "post", "", body)
    listed = staff.get(PATH)

    row = Upstream.objects.get(name="second")
    assert (made.status_code, made.data["id"], made.data["state"]) == (201, str(row.pk), "enabled")
    assert made.data["credentials"][0]["name"] == "default"
    assert {(route.weight, route.priority) for route in row.routes.all()} == {(3, 2)}
    assert plane_snapshot().upstreams[str(row.pk)].concurrency == 50
    assert SECRET not in made.content.decode() + listed.content.decode()
    (event,) = audits()
    assert (event.action, event.reason) == ("upstream.created", "capacity")
    assert SECRET not in json.dumps([event.before, event.after])


def test_a_name_is_given_once(staff: APIClient, upstream: Upstream) -> None:
    body = {"name": "first", "kind": "anthropic", "base_url": "https://other.example.com", **WHY}

    assert send(staff, "post", "", body).status_code == 409
    assert Upstream.objects.get().base_url == "https://api.example.com"


def test_weight_priority_and_caps_change_with_an_audit_row(
    staff: APIClient, upstream: Upstream
) -> None:
    body = {"weight": 5, "priority": 1, "requests_per_minute": 900, "concurrency": None, **WHY}

    answer = send(staff, "patch", f"/{upstream.pk}", body)

    assert (answer.status_code, answer.data["weight"], answer.data["priority"]) == (200, 5, 1)
    assert set(Route.objects.values_list("weight", "priority")) == {(5, 1)}
    snapshot = plane_snapshot().upstreams[str(upstream.pk)]
    assert (snapshot.requests_per_minute, snapshot.concurrency) == (900, None)
    (event,) = audits()
    assert event.before == {"weight": 1, "priority": 0, "requests_per_minute": None}
    assert event.after == {"weight": 5, "priority": 1, "requests_per_minute": 900}


@pytest.mark.parametrize(
    ("word", "state", "is_routed", "is_draining"),
    [("drain", "draining", True, True), ("disable", "disabled", False, False)],
)
def test_an_upstream_is_drained_or_disabled_and_enabled_again(
    staff: APIClient, upstream: Upstream, word: str, state: str, is_routed: bool, is_draining: bool
) -> None:
    changed = send(staff, "post", f"/{upstream.pk}/{word}", WHY)
    plane = plane_snapshot()
    back = send(staff, "post", f"/{upstream.pk}/enable", WHY)

    assert (changed.data["state"], back.data["state"]) == (state, "enabled")
    assert bool(plane.routes) is is_routed
    assert plane.upstreams[str(upstream.pk)].is_draining is is_draining
    assert [event.reason for event in audits()] == ["capacity", "capacity"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("patch", "/{id}", {"weight": 2}),
        ("patch", "/{id}", {"weight": 0, **WHY}),
        ("patch", "/{id}", {"concurrency": -1, **WHY}),
        ("patch", "/{id}", {"base_url": "http://elsewhere", **WHY}),
        ("patch", "/{id}", WHY),
        ("post", "/{id}/drain", {}),
        ("post", "/{id}/drain", {"reason": "   "}),
        ("put", "/{id}/credentials/default", {"secret": SECRET}),
        ("put", "/{id}/credentials/default", {"secret": "a\nb", **WHY}),
        ("put", "/{id}/credentials/default", {"secret": "schlüssel", **WHY}),
        ("post", "", {"name": "n", "kind": "soap", "base_url": "https://x.example.com", **WHY}),
        ("post", "", {"name": "n", "kind": "openai", "base_url": "ftp://x.example.com", **WHY}),
    ],
)
def test_what_is_wrong_or_without_a_reason_changes_nothing(
    staff: APIClient, upstream: Upstream, method: str, path: str, body: Any
) -> None:
    before = plane_snapshot()

    answer = send(staff, method, path.format(id=upstream.pk), body)

    assert answer.status_code in (400, 422)
    assert plane_snapshot() == before
    assert audits() == []


@pytest.mark.parametrize("number", ["0", "999999", "x", "-1", "1" * 30])
def test_an_upstream_that_is_not_there_is_404(staff: APIClient, number: str) -> None:
    assert staff.get(f"{PATH}/{number}").status_code == 404
    assert send(staff, "post", f"/{number}/drain", WHY).status_code == 404


def test_a_credential_is_replaced_and_only_its_last_four_are_shown(
    staff: APIClient, upstream: Upstream
) -> None:
    body = {"secret": "sk-ant-another-secret-entirely-Q4q4", "concurrency": 7, **WHY}

    answer = send(staff, "put", f"/{upstream.pk}/credentials/default", body)

    row = UpstreamCredential.objects.get()
    keys = env().sealing_keys
    place = credential_place(row.pk)
    assert (answer.status_code, answer.data["last_four"]) == (200, "Q4q4")
    assert sealing.unseal(row.sealed, place=place, master_keys=keys) == body["secret"]
    assert plane_snapshot().upstreams[str(upstream.pk)].credentials[0].concurrency == 7
    (event,) = audits()
    assert event.action == "upstream.credential_replaced"
    assert (event.before, event.after["last_four"]) == ({"last_four": "9Zx7"}, "Q4q4")
    assert "another-secret" not in answer.content.decode() + json.dumps(event.after)


def test_a_short_secret_shows_nothing_of_itself(staff: APIClient, upstream: Upstream) -> None:
    answer = send(staff, "put", f"/{upstream.pk}/credentials/two", {"secret": "short", **WHY})

    assert answer.data["last_four"] == ""


def test_a_disabled_credential_is_used_no_more_and_its_secret_is_gone(
    staff: APIClient, upstream: Upstream
) -> None:
    answer = send(staff, "delete", f"/{upstream.pk}/credentials/default", WHY)

    assert answer.data["credentials"][0]["is_enabled"] is False
    assert plane_snapshot().upstreams[str(upstream.pk)].credentials == ()
    assert UpstreamCredential.objects.get().sealed == ""
    gone = send(staff, "delete", f"/{upstream.pk}/credentials/none", WHY)
    assert gone.status_code == 404


ROUTES = [
    ("get", ""),
    ("post", ""),
    ("get", "/1"),
    ("patch", "/1"),
    ("post", "/1/enable"),
    ("post", "/1/disable"),
    ("post", "/1/drain"),
    ("post", "/1/test"),
    ("put", "/1/credentials/default"),
    ("delete", "/1/credentials/default"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_upstreams_are_for_staff_alone(method: str, path: str) -> None:
    owner = client_of(make_tenant())

    assert send(owner, method, path, WHY).status_code == 403
    assert send(APIClient(), method, path, WHY).status_code in (401, 403)


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Take one credential."""
        is_known = self.headers.get("x-api-key") == SECRET
        self.send_response(200 if is_known and self.path.startswith("/v1/models") else 401)
        self.end_headers()
        self.wfile.write(SECRET.encode())

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def listening() -> Iterator[str]:
    """An upstream on a real socket that takes one credential."""
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_test_tells_which_credential_is_taken(staff: APIClient, listening: str) -> None:
    row = add_upstream(name="u", kind="anthropic", base_url=listening, credential=SECRET)
    set_credential(upstream=row, secret="sk-wrong", name="wrong")

    answer = staff.post(f"{PATH}/{row.pk}/test")

    found = {
        item["credential"]: (item["is_ok"], item["http_status"]) for item in answer.data["probes"]
    }
    assert found == {"default": (True, 200), "wrong": (False, 401)}
    assert SECRET not in answer.content.decode()


def test_a_test_of_what_does_not_listen_says_so(staff: APIClient) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        row = add_upstream(name="u", kind="anthropic", base_url=url, credential=SECRET)

        answer = staff.post(f"{PATH}/{row.pk}/test")

    (probe,) = answer.data["probes"]
    assert (probe["is_ok"], probe["http_status"]) == (False, None)
    assert probe["detail"] == "It cannot be reached: ConnectionRefusedError."


@pytest.fixture
def old_key(monkeypatch: pytest.MonkeyPatch, upstream: Upstream) -> Iterator[Upstream]:
    """Credentials under today's master key, and a new key in front of it."""
    set_credential(upstream=upstream, secret="sk-second-secret", name="second")
    text = f"m9:{sealing.new_master_key()},{os.environ['MASTER_KEYS']}"
    monkeypatch.setenv("MASTER_KEYS", text)
    env.cache_clear()
    yield upstream
    monkeypatch.undo()
    env.cache_clear()


def run_rotation(*args: str) -> str:
    out = StringIO()
    call_command("rotate_master_key", *args, stdout=out)
    return out.getvalue()


def test_rotation_seals_everything_with_the_first_key_and_can_be_repeated(
    old_key: Upstream,
) -> None:
    planned = json.loads(run_rotation("--dry-run", "--json"))
    assert {row.sealed.split(":")[1] for row in UpstreamCredential.objects.all()} == {FIRST_KEY}

    done, again = json.loads(run_rotation("--json")), run_rotation()

    assert planned == done == {"master_key": "m9", "resealed": 2, "current": 0, "unopened": []}
    assert "0 sealed with master key m9.\n2 had it already." in again
    keys = {"m9": env().sealing_keys["m9"]}
    secrets = {
        sealing.unseal(row.sealed, place=credential_place(row.pk), master_keys=keys)
        for row in UpstreamCredential.objects.all()
    }
    assert secrets == {SECRET, "sk-second-secret"}
    assert not any(secret in again + json.dumps(done) for secret in secrets)


def test_rotation_names_what_no_key_opens_and_goes_on(old_key: Upstream) -> None:
    lost = UpstreamCredential.objects.get(name="second")
    lost.sealed = lost.sealed.replace(f"v1:{FIRST_KEY}:", "v1:m0:")
    lost.save()

    with pytest.raises(CommandError, match="1 credentials are opened by no key"):
        run_rotation()

    lost.refresh_from_db()
    assert lost.sealed.startswith("v1:m0:")
    assert UpstreamCredential.objects.get(name="default").sealed.startswith("v1:m9:")
