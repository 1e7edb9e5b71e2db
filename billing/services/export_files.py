"""build_exports: a tenant's members, keys, usage, requests, ledger and audit log as one zip.

Secrets are not in it, for nobody has them. The file is bounded; what was left out is named in it.
"""

import io
import json
import logging
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import IO, Any

from django.utils.translation import gettext as _

from accounts.models import (
    ApiKey,
    AuditEvent,
    DataExport,
    ExportPart,
    Invite,
    Member,
    Tenant,
    Workspace,
)
from accounts.services.mail import Letter, post_mail
from accounts.services.platform_settings import KEEP_EXPORTS_DAYS, read_setting
from billing.models.ledger import LedgerEntry, LedgerTxn
from billing.models.usage import NUMBER_COLUMNS, UsageEvent, UsageRollup
from billing.queries.requests import NUMBERS, WORDS
from turnpike.control import formats
from turnpike.control.exports import csv_lines
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.money import format_amount

logger = logging.getLogger(__name__)

AT_ONCE_MAX = 5
REQUESTS_MAX = 500_000
ROWS_MAX = 1_000_000
PART_BYTES = 1_048_576
FILE_BYTES_MAX = 64 * PART_BYTES
CHUNK = 2_000

Table = tuple[Sequence[str], Iterable[Sequence[Any]]]


class TooLarge(Exception):
    """The file would not fit."""


def build_exports() -> int:
    """Build what was asked for; returns how many files were made."""
    with platform_scope("billing.build_exports"):
        pending = DataExport.objects.filter(state=DataExport.State.PENDING)
        waiting = list(pending.order_by("pk").values_list("pk", "tenant_id")[:AT_ONCE_MAX])
    return sum(_build(export, tenant) for export, tenant in waiting)


def _build(number: int, tenant: int) -> bool:
    with tenant_scope(tenant):
        rows = DataExport.objects.select_for_update(skip_locked=True)
        export = rows.filter(pk=number, state=DataExport.State.PENDING).first()
        if export is None:
            return False
        try:
            with tempfile.TemporaryFile() as file:
                rows_written = _write_zip(file, tenant)
                _keep(export, file, rows=rows_written)
        except TooLarge:
            export.state, export.finished_at = DataExport.State.FAILED, clock.utc_now()
            export.save(update_fields=["state", "finished_at"])
            return False
        _tell(export)
    logger.info("export.built", extra={"tenant": tenant, "rows": rows_written})
    return True


def _write_zip(file: IO[bytes], tenant: int) -> int:
    written = 0
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("organization.json", json.dumps(_organization(tenant), indent=1))
        for name, make in _TABLES.items():
            header, rows = make(tenant)
            with archive.open(f"{name}.csv", "w", force_zip64=True) as member:
                member.write(csv_lines([header]))
                cells = ([_cell(value) for value in row] for row in rows)
                while lines := list(islice(cells, CHUNK)):
                    member.write(csv_lines(lines))
                    written += len(lines)
        archive.writestr("README.txt", _README)
    return written


def _keep(export: DataExport, file: IO[bytes], *, rows: int) -> None:
    size = file.seek(0, io.SEEK_END)
    if size > FILE_BYTES_MAX:
        raise TooLarge
    file.seek(0)
    place = 0
    while data := file.read(PART_BYTES):
        ExportPart.objects.create(tenant_id=export.tenant_id, export=export, place=place, data=data)
        place += 1
    now = clock.utc_now()
    export.state, export.finished_at = DataExport.State.READY, now
    export.expires_at = now + timedelta(days=read_setting(KEEP_EXPORTS_DAYS))
    export.size_bytes, export.rows = size, rows
    export.save()


def _tell(export: DataExport) -> None:
    assert export.expires_at is not None
    letter = Letter(
        subject=_("Your data is ready"),
        paragraphs=(
            _("The copy of your organization's data can be fetched until %(day)s.")
            % {"day": export.expires_at.strftime("%Y-%m-%d")},
            _("Only an owner can fetch it, after proving who they are."),
        ),
    )
    post_mail(
        key=f"export:{export.public_id}",
        kind="export",
        to=export.requested_by.email,
        letter=letter,
        tenant=export.tenant_id,
    )


def _organization(tenant: int) -> dict[str, Any]:
    row = Tenant.objects.get(pk=tenant)
    return {
        "id": row.public_id,
        "name": row.name,
        "status": row.status,
        "created_at": clock.rfc3339(row.created_at),
        "exported_at": clock.rfc3339(clock.utc_now()),
        "requests_at_most": REQUESTS_MAX,
    }


def _workspaces(tenant: int) -> Table:
    rows = Workspace.objects.filter(tenant_id=tenant).order_by("pk")
    return (
        ("id", "name", "created_at", "archived_at"),
        ((row.public_id, row.name, row.created_at, row.archived_at) for row in rows),
    )


def _members(tenant: int) -> Table:
    rows = Member.objects.filter(tenant_id=tenant).select_related("user").order_by("pk")
    return (
        ("id", "email", "name", "role", "since"),
        (
            (row.user.public_id, row.user.email, row.user.name, row.role, row.created_at)
            for row in rows
        ),
    )


def _invitations(tenant: int) -> Table:
    now = clock.utc_now()
    rows = Invite.objects.filter(tenant_id=tenant).order_by("pk")
    return (
        ("id", "email", "role", "status", "created_at"),
        ((row.public_id, row.email, row.role, row.status_at(now), row.created_at) for row in rows),
    )


def _keys(tenant: int) -> Table:
    now = clock.utc_now()
    rows = ApiKey.objects.filter(tenant_id=tenant).select_related("workspace").order_by("pk")
    return (
        ("id", "name", "kind", "hint", "workspace", "status", "scopes", "created_at", "expires_at"),
        (
            (
                row.public_id,
                row.name,
                row.kind,
                row.hint,
                row.workspace.public_id,
                row.status_at(now),
                " ".join(row.scopes),
                row.created_at,
                row.ends_at,
            )
            for row in rows
        ),
    )


def _usage(tenant: int) -> Table:
    names = ("bucket_at", "workspace_id", "api_key_id", "model", "tier", "requests")
    columns = (*names, *NUMBER_COLUMNS)
    rows = UsageRollup.objects.filter(tenant_id=tenant).order_by("bucket_at")
    return columns, rows.values_list(*columns)[:ROWS_MAX].iterator(chunk_size=CHUNK)


def _requests(tenant: int) -> Table:
    columns = (*WORDS, *NUMBERS)
    rows = UsageEvent.objects.filter(tenant_id=tenant).order_by("-request_id", "-revision")
    found = rows.values_list(*columns)[:REQUESTS_MAX].iterator(chunk_size=CHUNK)
    return ("id", *columns[1:]), ((ids.public_id(ids.REQUEST, row[0]), *row[1:]) for row in found)


def _ledger(tenant: int) -> Table:
    entries = LedgerEntry.objects.filter(tenant_id=tenant).select_related("txn", "account")
    return (
        ("posting", "kind", "posted_at", "account", "side", "amount", "balance_after", "currency"),
        _ledger_rows(entries.order_by("txn_id", "line")[:ROWS_MAX].iterator(chunk_size=CHUNK)),
    )


def _ledger_rows(entries: Iterable[LedgerEntry]) -> Iterator[Sequence[Any]]:
    for entry in entries:
        txn: LedgerTxn = entry.txn
        yield (
            txn.idem_key,
            txn.kind,
            txn.posted_at,
            entry.account.kind,
            "debit" if entry.side > 0 else "credit",
            format_amount(entry.amount),
            format_amount(entry.balance_after),
            txn.currency,
        )


def _audit(tenant: int) -> Table:
    columns = ("created_at", "actor", "action", "target", "before", "after", "address", "reason")
    rows = AuditEvent.objects.filter(tenant_id=tenant).order_by("pk")
    return columns, rows.values_list(*columns)[:ROWS_MAX].iterator(chunk_size=CHUNK)


def _cell(value: Any) -> Any:
    """A value as a file has it."""
    if isinstance(value, datetime):
        return clock.rfc3339(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return formats.spreadsheet_cell(value) if isinstance(value, str) else value


_TABLES: dict[str, Callable[[int], Table]] = {
    "workspaces": _workspaces,
    "members": _members,
    "invitations": _invitations,
    "keys": _keys,
    "usage": _usage,
    "requests": _requests,
    "ledger": _ledger,
    "audit": _audit,
}
_README = f"""\
Everything that this organization has here, as CSV (UTF-8) and JSON.

organization.json  name, id and state
workspaces, members, invitations, keys
                   who and what; secrets of keys are not kept anywhere
usage              sums by a quarter of an hour; amounts in nano-units of the currency
requests           one row for each revision of a request, the newest first, at most {REQUESTS_MAX};
                   prompts and answers are not kept
ledger             every posting on the organization's accounts, amounts in the currency's unit
audit              who did what to what

Times are UTC (RFC 3339). Text that a spreadsheet would take for a formula begins with '.
"""
