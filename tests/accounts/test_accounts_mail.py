"""Mail: sent once after the commit, tried again, sealed until then; invitations go by it."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from django.core import mail as outbox
from django.test import override_settings
from django.utils import translation

from accounts.models import Mail, Role, Tenant
from accounts.services import mail
from accounts.services.mail import Letter, deliver_mail, post_mail, retry_mail
from accounts.services.members import resend_invite
from tests.accounts.factories import make_invite
from turnpike.control.caller import SYSTEM
from turnpike.control.mail_backend import (
    FOLDER_BACKEND,
    find_message,
    list_messages,
    parse_mail_url,
    purge_messages,
)
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict

LETTER = Letter(
    subject="Hello", paragraphs=("One.", "Two <b>."), action="Open", address="https://x.test/?t=s"
)
CLOSED_PORT = 9


def post(key: str = "k", *, to: str = "a@example.com", tenant: Tenant | None = None) -> bool:
    with platform_scope("tests"):
        return post_mail(
            key=key, kind="test", to=to, letter=LETTER, tenant=tenant.pk if tenant else None
        )


def only() -> Mail:
    with platform_scope("tests"):
        return Mail.objects.get()


def test_a_message_is_sent_once_under_its_key_and_says_nothing_afterwards(db: None) -> None:
    assert post() is True
    assert post() is False
    assert "x.test" not in only().sealed

    assert deliver_mail() == 1
    assert deliver_mail() == 0

    (sent,) = outbox.outbox
    assert (sent.to, sent.subject) == (["a@example.com"], "Hello")
    assert "Open:\nhttps://x.test/?t=s" in sent.body
    assert "Two &lt;b&gt;." in str(sent.alternatives[0][0])  # type: ignore[attr-defined]
    assert (only().state, only().sealed) == (Mail.State.SENT, "")


def test_a_server_that_is_away_is_tried_again_later_and_given_up_at_last(db: None) -> None:
    post()
    away = override_settings(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=CLOSED_PORT,
    )
    with away:
        assert deliver_mail() == 0
        first = only()
        assert deliver_mail() == 0

    assert (first.tries, first.state) == (1, Mail.State.WAITING)
    assert first.next_try_at > clock.utc_now() + timedelta(seconds=20)
    assert only().tries == 1

    with platform_scope("tests"):
        Mail.objects.update(tries=mail.TRIES_MAX - 1, next_try_at=clock.utc_now())
    with away:
        deliver_mail()
    assert (only().state, only().sealed) == (Mail.State.FAILED, "")


def test_somebody_may_try_at_once(db: None) -> None:
    post()
    with platform_scope("tests"):
        Mail.objects.update(next_try_at=clock.utc_now() + timedelta(hours=1))

    assert deliver_mail() == 0
    assert retry_mail(mail=only().pk) is True
    assert deliver_mail() == 1
    assert retry_mail(mail=only().pk) is False


def test_an_address_gets_so_much_a_day_and_no_more(db: None) -> None:
    for number in range(mail.ADDRESS_DAY_MAX):
        post(f"k{number}")

    with pytest.raises(Conflict):
        post("one more")
    assert post("another", to="b@example.com") is True


def test_an_invitation_is_mailed_with_its_link_in_the_inviters_language(tenant: Tenant) -> None:
    with translation.override("ru"):
        sent = make_invite(tenant, "new@example.com", Role.DEVELOPER)
    deliver_mail()

    (message,) = outbox.outbox
    assert message.to == ["new@example.com"]
    assert sent.token.split(":")[0] in message.body
    assert "Acme" in message.subject
    assert message.extra_headers["Content-Language"] == "ru"


def test_sending_an_invitation_again_mails_the_new_link(tenant: Tenant) -> None:
    first = make_invite(tenant, "new@example.com", Role.DEVELOPER)
    with platform_scope("tests"):
        second = resend_invite(caller=SYSTEM, invite=first.invite)
    deliver_mail()

    assert len(outbox.outbox) == 2
    assert second.token.split(":")[0] in outbox.outbox[1].body
    assert first.token not in json.dumps([item.body for item in outbox.outbox[1:]])


def test_a_folder_takes_mail_and_gives_it_to_readers(db: None, tmp_path: Path) -> None:
    with override_settings(EMAIL_BACKEND=FOLDER_BACKEND, EMAIL_FILE_PATH=str(tmp_path)):
        post()
        assert deliver_mail() == 1

    (message,) = list_messages(tmp_path, limit=10)
    assert (message.recipient, message.subject) == ("a@example.com", "Hello")
    assert "https://x.test/?t=s" in message.text
    assert find_message(tmp_path, message.name) == message
    assert find_message(tmp_path, "../../etc/passwd") is None
    assert purge_messages(tmp_path, before=clock.utc_now() + timedelta(seconds=1)) == 1
    assert list_messages(tmp_path, limit=10) == []


def test_an_address_of_a_server_is_read_and_nonsense_refused() -> None:
    server = parse_mail_url("smtps://me:p%40ss@mail.example.com")

    assert (server.host, server.port, server.user, server.password) == (
        "mail.example.com",
        465,
        "me",
        "p@ss",
    )
    assert server.is_tls
    assert not parse_mail_url("smtp://localhost?tls=off").has_starttls
    assert parse_mail_url("smtp://mail.example.com").has_starttls
    for nonsense in ("http://x", "smtp://", "file:", "mail"):
        with pytest.raises(ValueError, match="MAIL_URL"):
            parse_mail_url(nonsense)
