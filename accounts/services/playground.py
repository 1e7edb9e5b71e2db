"""open_playground: the key with which a workspace's playground calls the data plane.

Its secret is derived from a pepper, the workspace and a generation number each time it is needed:
it is never stored, shown or logged. A new generation replaces a key that no longer works.
"""

from django.db.models import Max

from accounts.models import ApiKey, ApiKeyStatus, Workspace
from accounts.services.audit import record_audit
from accounts.services.policy import lock_tenant, touch_tenant
from turnpike.contracts.snapshots import KIND_PLAYGROUND, SCOPE_COUNT_TOKENS, SCOPE_MESSAGES
from turnpike.control.caller import Caller
from turnpike.env import env
from turnpike.kernel import clock, hashing
from turnpike.kernel.errors import Conflict

KEY_NAME = "Playground"


def open_playground(*, caller: Caller, workspace: Workspace) -> str:
    """The secret of the workspace's playground key; makes the key where there is none in force."""
    if workspace.archived_at is not None:
        raise Conflict("The workspace is archived.")
    key = _find_key(workspace)
    if key is None:
        key = _next_generation(caller, workspace)
    return _secret_of(key)


def _find_key(workspace: Workspace) -> ApiKey | None:
    """The key in use, if its pepper is still known and nobody stopped it."""
    key = ApiKey.objects.filter(
        workspace=workspace, kind=KIND_PLAYGROUND, revoked_at__isnull=True
    ).first()
    is_usable = (
        key is not None
        and key.pepper_id in env().peppers
        and key.status_at(clock.utc_now()) == ApiKeyStatus.ACTIVE
    )
    return key if is_usable else None


def _next_generation(caller: Caller, workspace: Workspace) -> ApiKey:
    lock_tenant(workspace.tenant_id)
    found = _find_key(workspace)
    if found is not None:
        return found
    own = ApiKey.objects.filter(workspace=workspace, kind=KIND_PLAYGROUND)
    newest = own.aggregate(newest=Max("generation"))["newest"] or 0
    old = list(own.filter(revoked_at__isnull=True).values_list("pk", flat=True))
    own.filter(pk__in=old).update(revoked_at=clock.utc_now())
    pepper_id, pepper = next(iter(env().peppers.items()))
    key = ApiKey(
        tenant_id=workspace.tenant_id,
        workspace=workspace,
        kind=KIND_PLAYGROUND,
        name=KEY_NAME,
        pepper_id=pepper_id,
        hint="",
        scopes=[SCOPE_MESSAGES, SCOPE_COUNT_TOKENS],
        generation=newest + 1,
    )
    key.digest = hashing.digest_key(_secret_of(key), pepper=pepper)
    key.save(force_insert=True)
    record_audit(
        actor=caller,
        tenant=workspace.tenant_id,
        action="key.created",
        target=key.public_id,
        after={"kind": KIND_PLAYGROUND, "generation": key.generation},
    )
    touch_tenant(workspace.tenant_id, keys=[key.pk, *old])
    return key


def _secret_of(key: ApiKey) -> str:
    return hashing.derive_key(
        hashing.PLAYGROUND_KEY_PREFIX,
        pepper=env().peppers[key.pepper_id],
        name=f"{key.workspace.public_id}:{key.generation}",
    )
