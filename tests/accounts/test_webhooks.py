"""Events of tenants: written with their cause, signed, tried again, replayed."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from standardwebhooks import Webhook, WebhookVerificationError

from accounts.models import Mail, Role, Tenant, WebhookDelivery, WebhookEndpoint, WebhookEvent
from accounts.queries import get_default_workspace
from accounts.services import webhook_delivery, webhook_events, webhooks
from accounts.services.keys import issue_key, revoke_key, rotate_key
from accounts.services.members import remove_member
from accounts.services.webhook_delivery import deliver_webhooks
from accounts.services.webhooks import IssuedWebhook
from tests.accounts.factories import make_member
from tests.accounts.receiver import Receiver, receiving
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, InvalidInput


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.WEBHOOKS_ALLOW_LOOPBACK = True


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def make_webhook(tenant: Tenant, url: str, *event_types: str) -> IssuedWebhook:
    with platform_scope("tests"):
        return webhooks.create_webhook(
            caller=SYSTEM, tenant=tenant, url=url, event_types=event_types, description=""
        )


def emit(tenant: Tenant, key: str = "", kind: str = webhook_events.BALANCE_LOW) -> bool:
    with tenant_scope(tenant.pk):
        return webhook_events.emit_event(
            tenant=tenant.pk, kind=kind, data={"balance": "1.50"}, key=key
        )


def the_delivery() -> WebhookDelivery:
    with platform_scope("tests"):
        return WebhookDelivery.objects.select_related("endpoint", "event").get()


def test_the_receiver_verifies_what_it_gets(tenant: Tenant, receiver: Receiver) -> None:
    issued = make_webhook(tenant, receiver.url)
    emit(tenant)

    assert deliver_webhooks() == 1

    headers, body = receiver.got[0]
    verified = Webhook(issued.secret).verify(body, headers)
    assert verified["type"] == "balance.low"
    assert verified["data"] == {"balance": "1.50"}
    assert headers["webhook-id"].startswith("evt_01")
    with pytest.raises(WebhookVerificationError):
        Webhook(issued.secret).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhooks.new_secret()).verify(body, headers)
    assert the_delivery().state == "delivered"


def test_while_a_rotation_overlaps_both_secrets_verify(tenant: Tenant, receiver: Receiver) -> None:
    old = make_webhook(tenant, receiver.url)
    with platform_scope("tests"):
        new = webhooks.rotate_webhook(caller=SYSTEM, endpoint=old.endpoint)
    emit(tenant)
    deliver_webhooks()
    with platform_scope("tests"):
        newest = webhooks.rotate_webhook(caller=SYSTEM, endpoint=old.endpoint, overlap=timedelta(0))
    emit(tenant)
    deliver_webhooks()

    (headers, body), (later_headers, later_body) = receiver.got
    Webhook(old.secret).verify(body, headers)
    Webhook(new.secret).verify(body, headers)
    Webhook(newest.secret).verify(later_body, later_headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new.secret).verify(later_body, later_headers)


def test_the_secret_is_kept_sealed(tenant: Tenant, receiver: Receiver) -> None:
    issued = make_webhook(tenant, receiver.url)

    with platform_scope("tests"):
        row = WebhookEndpoint.objects.values().get()
    assert issued.secret.removeprefix("whsec_") not in str(row)
    assert issued.secret not in repr(issued)


def test_an_event_lives_and_dies_with_its_cause(tenant: Tenant, receiver: Receiver) -> None:
    make_webhook(tenant, receiver.url)
    with tenant_scope(tenant.pk), transaction.atomic():
        emit(tenant)
        transaction.set_rollback(True)

    assert deliver_webhooks() == 0
    with platform_scope("tests"):
        assert not WebhookEvent.objects.exists()


def test_one_cause_is_one_event(tenant: Tenant, receiver: Receiver) -> None:
    make_webhook(tenant, receiver.url)

    assert [emit(tenant, "cause"), emit(tenant, "cause"), emit(tenant, "other")] == [
        True,
        False,
        True,
    ]


def test_only_the_chosen_types_of_ones_own_tenant_arrive(
    tenant: Tenant, stranger: Tenant, receiver: Receiver
) -> None:
    make_webhook(tenant, receiver.url, webhook_events.BALANCE_LOW)
    emit(tenant, kind=webhook_events.BATCH_ENDED)
    emit(stranger)
    emit(tenant)

    assert deliver_webhooks() == 1


def test_failures_are_tried_again_until_the_tries_are_used_up(
    tenant: Tenant, receiver: Receiver
) -> None:
    make_webhook(tenant, receiver.url)
    receiver.status, receiver.answer = 500, b"out of order"
    emit(tenant)
    at = began = clock.utc_now()
    for _try in range(webhook_delivery.TRIES_MAX):
        assert deliver_webhooks(at=at) == 1
        assert deliver_webhooks(at=at) == 0
        at = max(the_delivery().next_try_at, at + webhook_delivery.REST_MAX)

    delivery = the_delivery()
    assert delivery.state == "failed"
    assert deliver_webhooks(at=at + timedelta(days=9)) == 0
    assert timedelta(days=2) < at - began < timedelta(days=5)
    assert len({headers["webhook-id"] for headers, _body in receiver.got}) == 1
    assert len({body for _headers, body in receiver.got}) == 1
    with platform_scope("tests"):
        last = delivery.attempts.order_by("-number").first()
        assert last is not None
        assert (last.status, last.response) == (500, "out of order")


def test_a_replay_sends_the_same_event_again(tenant: Tenant, receiver: Receiver) -> None:
    make_webhook(tenant, receiver.url)
    emit(tenant)
    deliver_webhooks()
    with platform_scope("tests"):
        webhooks.replay_delivery(caller=SYSTEM, delivery=the_delivery())
    deliver_webhooks()

    first, second = receiver.got
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert first[1] == second[1]
    with platform_scope("tests"):
        assert the_delivery().attempts.count() == 2


def test_an_endpoint_that_takes_nothing_for_days_is_switched_off_with_mail(
    tenant: Tenant, receiver: Receiver
) -> None:
    make_member(tenant, Role.OWNER)
    make_member(tenant, Role.VIEWER)
    issued = make_webhook(tenant, receiver.url)
    receiver.status = 503
    emit(tenant)
    now = clock.utc_now()
    deliver_webhooks(at=now)
    deliver_webhooks(at=now + webhook_delivery.DISABLE_AFTER)

    with platform_scope("tests"):
        issued.endpoint.refresh_from_db()
        assert issued.endpoint.disabled == "failing"
        assert Mail.objects.filter(kind="notice.webhooks").count() == 1
        with pytest.raises(Conflict):
            webhooks.send_test(caller=SYSTEM, endpoint=issued.endpoint)
    assert not emit(tenant)
    receiver.status = 200
    with platform_scope("tests"):
        webhooks.update_webhook(
            caller=SYSTEM, endpoint=issued.endpoint, changes={"is_enabled": True}
        )
    assert deliver_webhooks(at=now + timedelta(days=7)) == 1
    assert the_delivery().state == "delivered"


def test_410_switches_off_at_once(tenant: Tenant, receiver: Receiver) -> None:
    issued = make_webhook(tenant, receiver.url)
    receiver.status = 410
    emit(tenant)
    deliver_webhooks()

    with platform_scope("tests"):
        issued.endpoint.refresh_from_db()
    assert issued.endpoint.disabled == "gone"


def test_one_that_is_away_holds_up_nobody_else(tenant: Tenant, receiver: Receiver) -> None:
    make_webhook(tenant, "http://127.0.0.1:9999/", webhook_events.BALANCE_LOW)
    make_webhook(tenant, receiver.url)
    for number in range(3):
        emit(tenant, str(number))
    now = clock.utc_now()

    # The one that is away is tried once and rests; the other gets all three.
    assert deliver_webhooks(at=now) == 4
    assert len(receiver.got) == 3


def test_a_test_event_goes_to_one_endpoint_whatever_it_chose(
    tenant: Tenant, receiver: Receiver
) -> None:
    issued = make_webhook(tenant, receiver.url, webhook_events.BATCH_ENDED)
    with platform_scope("tests"):
        webhooks.send_test(caller=SYSTEM, endpoint=issued.endpoint)
    deliver_webhooks()

    assert json.loads(receiver.got[0][1])["type"] == "webhook.test"


def test_keys_and_members_tell_of_themselves(tenant: Tenant, receiver: Receiver) -> None:
    make_webhook(tenant, receiver.url)
    with platform_scope("tests"):
        workspace = get_default_workspace(tenant)
        issued = issue_key(caller=SYSTEM, workspace=workspace, settings={"name": "robot"})
        rotated = rotate_key(caller=SYSTEM, key=issued.key, grace=timedelta(0))
        revoke_key(caller=SYSTEM, key=rotated.key)
    make_member(tenant, Role.OWNER)
    member = make_member(tenant, Role.VIEWER)
    with platform_scope("tests"):
        remove_member(caller=SYSTEM, member=member)
        events = list(WebhookEvent.objects.order_by("pk"))

    assert [event.type for event in events] == [
        "key.created",
        "key.rotated",
        "key.revoked",
        "member.joined",
        "member.joined",
        "member.removed",
    ]
    assert issued.secret not in "".join(event.body for event in events)


def test_a_payment_is_told_of_once(tenant: Tenant, receiver: Receiver) -> None:
    make_webhook(tenant, receiver.url)
    payment: dict[str, Any] = {
        "tenant": tenant.pk,
        "payment": "pi_1",
        "amount": "25.000000000",
        "currency": "USD",
        "provider": "stripe",
    }
    with tenant_scope(tenant.pk):
        told = [webhook_events.emit_payment_received(**payment) for _again in range(2)]

    assert told == [True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://169.254.169.254/"},
        {"url": "http://example.com/"},
        {"event_types": ["no.such"]},
        {"description": "x" * 101},
        {"tenant": 1},
    ],
)
def test_bad_settings_are_refused(
    tenant: Tenant, receiver: Receiver, changes: dict[str, Any], settings: Any
) -> None:
    issued = make_webhook(tenant, receiver.url)
    settings.WEBHOOKS_ALLOW_LOOPBACK = False
    with platform_scope("tests"), pytest.raises(InvalidInput):
        webhooks.update_webhook(caller=SYSTEM, endpoint=issued.endpoint, changes=changes)


def test_without_the_setting_loopback_is_not_reached(
    tenant: Tenant, receiver: Receiver, settings: Any
) -> None:
    make_webhook(tenant, receiver.url)
    settings.WEBHOOKS_ALLOW_LOOPBACK = False
    emit(tenant)
    deliver_webhooks()

    assert receiver.got == []
    assert the_delivery().state == "waiting"


def test_another_master_key_takes_the_secrets_over(tenant: Tenant, receiver: Receiver) -> None:
    make_webhook(tenant, receiver.url)
    with platform_scope("tests"):
        assert webhooks.reseal_webhooks() == (0, ())


def test_old_events_go(tenant: Tenant, receiver: Receiver) -> None:
    make_webhook(tenant, receiver.url)
    emit(tenant)
    now = clock.utc_now()

    assert webhook_delivery.purge_webhooks(before=now - timedelta(days=1)) == 0
    assert webhook_delivery.purge_webhooks(before=now + timedelta(days=1)) == 2
