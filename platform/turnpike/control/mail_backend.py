"""Where mail goes: a server, or a folder of files that the operator's console reads.

`MAIL_URL` names it. The folder is bounded: the oldest messages make room for new ones.
"""

import email
import email.policy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage as ParsedMessage
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from turnpike.kernel import clock, ids

FOLDER_BACKEND = "turnpike.control.mail_backend.FolderBackend"
SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
KEPT_MAX = 500
MESSAGE_BYTES_MAX = 1_048_576
ENDING = ".eml"
PORTS = {"smtp": 587, "smtps": 465}


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """What `MAIL_URL` says, as Django's settings want it."""

    backend: str
    folder: str = ""
    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    has_starttls: bool = False
    is_tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message in the folder as people read it."""

    name: str
    at: datetime
    sender: str
    recipient: str
    subject: str
    text: str


def parse_mail_url(url: str) -> MailServer:
    """Read `MAIL_URL`. Raises ValueError for what is neither a server nor a folder."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path:
        return MailServer(backend=FOLDER_BACKEND, folder=unquote(parts.path))
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("MAIL_URL must be smtp://host, smtps://host or file:/folder.")
    is_tls = parts.scheme == "smtps"
    return MailServer(
        backend=SMTP_BACKEND,
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        has_starttls=not is_tls and parse_qs(parts.query).get("tls") != ["off"],
        is_tls=is_tls,
    )


class FolderBackend(BaseEmailBackend):
    """Writes each message into a file of its own; for one machine and for trying things."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Write them; returns how many."""
        from django.conf import settings

        folder = Path(settings.EMAIL_FILE_PATH)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for message in email_messages:
            # The id sorts by time; a message is complete or not there.
            name = f"{ids.uuid7().hex}{ENDING}"
            draft = folder / f".{name}"
            draft.write_bytes(message.message().as_bytes())
            draft.chmod(0o600)
            draft.rename(folder / name)
        for old in sorted(folder.glob(f"*{ENDING}"))[:-KEPT_MAX]:
            old.unlink(missing_ok=True)
        return len(email_messages)


def list_messages(folder: Path, *, limit: int) -> list[StoredMessage]:
    """The newest messages in a folder, the newest first."""
    names = sorted((path.name for path in folder.glob(f"*{ENDING}")), reverse=True)
    return list(_read_all(folder, names[:limit]))


def find_message(folder: Path, name: str) -> StoredMessage | None:
    """One message by its name; None where there is none of that name."""
    known = {path.name for path in folder.glob(f"*{ENDING}")}
    return next(_read_all(folder, [name]), None) if name in known else None


def purge_messages(folder: Path, *, before: datetime) -> int:
    """Delete messages older than a time; returns how many."""
    old = [path for path in folder.glob(f"*{ENDING}") if _written_at(path.name) < before]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _read_all(folder: Path, names: Sequence[str]) -> Iterator[StoredMessage]:
    for name in names:
        try:
            body = (folder / name).read_bytes()[:MESSAGE_BYTES_MAX]
        except OSError:
            continue
        message = email.message_from_bytes(body, policy=email.policy.default)
        yield StoredMessage(
            name=name,
            at=_written_at(name),
            sender=str(message["from"]),
            recipient=str(message["to"]),
            subject=str(message["subject"]),
            text=_text_of(message),
        )


def _written_at(name: str) -> datetime:
    return clock.datetime_of_us(int(name[:12], 16) * 1_000)


def _text_of(message: ParsedMessage) -> str:
    part = message.get_body(preferencelist=("plain",))
    return "" if part is None else str(part.get_content())
