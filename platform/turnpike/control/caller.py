"""Who calls the control plane, and the powers that can be given."""

from dataclasses import dataclass
from enum import StrEnum


class Power(StrEnum):
    """One thing that a caller may do in a tenant; also the scopes of a management key."""

    TENANT_READ = "tenant:read"
    TENANT_WRITE = "tenant:write"
    WORKSPACES_READ = "workspaces:read"
    WORKSPACES_WRITE = "workspaces:write"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    OWNERS_WRITE = "owners:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    MANAGEMENT_KEYS_WRITE = "management_keys:write"
    AUDIT_READ = "audit:read"
    USAGE_READ = "usage:read"
    REQUESTS_READ = "requests:read"
    BILLING_READ = "billing:read"
    BILLING_WRITE = "billing:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"


ALL_POWERS = frozenset(Power)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who has proved who they are; `tenant` is None for an operator of the platform.

    `actor` is a public id (``user_…``, ``apikey_…``) or ``system``; `user` is the person's number.
    """

    actor: str
    tenant: int | None = None
    powers: frozenset[Power] = frozenset()
    is_operator: bool = False
    user: int | None = None
    address: str = ""
    request_id: str = ""

    @property
    def is_authenticated(self) -> bool:
        """True: whoever has a Caller has been authenticated."""
        return True

    def has_power(self, power: Power) -> bool:
        """Whether this caller was given a power."""
        return power in self.powers


def actor_of(actor: Caller | str) -> str:
    """How a ledger or a document names who acted: a caller, or a name where nobody called."""
    return actor.actor if isinstance(actor, Caller) else actor


SYSTEM = Caller(actor="system", powers=ALL_POWERS, is_operator=True)
