"""touch_tenant: how every change to a tenant reaches the data plane by the next request."""

from collections.abc import Collection
from functools import partial

from django.db import transaction
from django.db.models import F

from accounts.models import Tenant
from accounts.snapshots import publish_tenant
from turnpike.control.publication import note_planned


def touch_tenant(tenant_pk: int, *, keys: Collection[int] = ()) -> int:
    """Raise a tenant's policy version; after the commit, in this call, publish it.

    Locks the tenant's row. `keys` are published or deleted with it. Who publishes values of their
    own (terms, wallets) registers that with `transaction.on_commit` before calling this, so that
    the version is raised last. Each call raises a version of its own, so several in one transaction
    are right too. Returns the new version.
    """
    lock_tenant(tenant_pk)
    Tenant.objects.filter(pk=tenant_pk).update(policy_version=F("policy_version") + 1)
    version = Tenant.objects.values_list("policy_version", flat=True).get(pk=tenant_pk)
    note_planned()
    transaction.on_commit(partial(publish_tenant, tenant_pk, version=version, keys=tuple(keys)))
    return version


def lock_tenant(tenant_pk: int) -> Tenant:
    """The tenant's row, locked: its changes and its audit log happen one after the other."""
    return Tenant.objects.select_for_update(no_key=True).get(pk=tenant_pk)
