"""What the control plane tells the data plane: frozen values, written to Redis as JSON.

Redis' names for them are in ``turnpike.kernel.keyspace``. Numbers of tenant, workspace and key are
the database's; public ids (``ten_…``) stand beside them for headers and logs. Money is in micros,
rounded down where it limits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1

# Periods of a budget; days and months are UTC.
PERIOD_DAY = "day"
PERIOD_MONTH = "month"

KIND_API = "api"
KIND_MANAGEMENT = "management"
KIND_PLAYGROUND = "playground"

# What an upstream speaks.
UPSTREAM_ANTHROPIC = "anthropic"
UPSTREAM_OPENAI = "openai"

SCOPE_MESSAGES = "messages"
SCOPE_COUNT_TOKENS = "count_tokens"
SCOPE_MODELS = "models"
SCOPES = (SCOPE_MESSAGES, SCOPE_COUNT_TOKENS, SCOPE_MODELS)

MODE_PREPAID = "prepaid"
MODE_POSTPAID = "postpaid"

STATUS_ACTIVE = "active"

ON_DISCONNECT_CANCEL = "cancel"
ON_DISCONNECT_DRAIN = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one scope. None: not limited here (the scopes above still hold)."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    concurrency: int | None = None
    burst_seconds: int | None = None  # how many seconds' worth a full bucket holds; None: 60

    def over(self, base: "Limits") -> "Limits":
        """These limits where they are set, those of `base` elsewhere."""
        return Limits(
            **{
                name: getattr(base, name) if getattr(self, name) is None else getattr(self, name)
                for name in LIMIT_NAMES
            }
        )


LIMIT_NAMES = (
    "requests_per_minute",
    "tokens_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "concurrency",
    "burst_seconds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A blocking budget: what a scope may spend in one UTC day or month."""

    period: str
    limit_micro: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySnapshot:
    """What the data plane needs to know of one key (``tp:key:<digest>``)."""

    key: int
    key_id: str
    tenant: int
    workspace: int
    kind: str = KIND_API
    scopes: tuple[str, ...] = SCOPES
    models: tuple[str, ...] | None = None
    ip_ranges: tuple[str, ...] = ()
    expires_at_us: int | None = None
    member: str | None = None
    limits: Limits = Limits()
    budgets: tuple[Budget, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSnapshot:
    """A workspace's public id, its limits below the tenant's, and its budgets."""

    workspace_id: str
    is_active: bool = True
    limits: Limits = Limits()
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantWho:
    """Field `who` of a tenant's hash; workspaces are keyed by their number as text."""

    tenant_id: str
    status: str = STATUS_ACTIVE
    workspaces: Mapping[str, WorkspaceSnapshot] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTerms:
    """Field `terms` of a tenant's hash: what it bought."""

    tier: str
    book: int
    overrides: Limits = Limits()
    group_overrides: Mapping[str, Limits] = field(default_factory=dict)
    discount_bp: int = 0
    mode: str = MODE_PREPAID
    currency: str = "USD"
    is_in_good_standing: bool = False  # may be served from the local fallback while Redis is away
    # When a client leaves its stream: cancel | drain; empty: as the upstream has it.
    on_disconnect: str = ""
    drain_seconds: int | None = None  # how long a drain reads on; None: to the end
    balance_micro: int = 0  # last known spendable balance, for the fallback's floor alone
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSnapshot:
    """A tier: limits of the tenant, limits per model group, and what is denied."""

    tier: str
    name: str
    limits: Limits
    group_limits: Mapping[str, Limits] = field(default_factory=dict)
    output_reserve_max: int | None = 4_096  # None: `strict`, all of max_tokens counts at admission
    count_tokens_per_minute: int = 2_000
    denied_betas: tuple[str, ...] = ()
    denied_models: tuple[str, ...] = ()
    allowed_features: tuple[str, ...] = ()  # of turnpike.contracts.features.FEATURES


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSnapshot:
    """A model as the catalogue describes it; times are RFC 3339."""

    model: str
    display_name: str
    line: str | None = None
    limit_group: str = ""
    created_at: str = ""
    lifecycle: str = "active"
    deprecated_at: str | None = None
    retires_at: str | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    aliases: tuple[str, ...] = ()
    capabilities: Mapping[str, Any] | None = None
    successor: str | None = None
    is_successor_allowed: bool = (
        False  # the operator lets the successor answer when no route is left
    )
    is_enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One price row. Exactly one of the two rates is set."""

    component: str
    variant: str = "standard"
    min_input: int = 0  # applies to prompts above this many tokens; the highest that fits wins
    nano_per_mtok: int | None = None
    nano_per_unit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSet:
    """The prices of one book in one span of time; never changed once used."""

    price_set: int
    book: int
    from_us: int
    until_us: int | None = None
    currency: str = "USD"
    # By model; "*": what is sold by the unit.
    prices: Mapping[str, tuple[Price, ...]] = field(default_factory=dict)

    def __hash__(self) -> int:
        """The number names the set: caches of every request look it up by this."""
        return self.price_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One upstream that serves a model, and the name it knows the model by."""

    upstream: int
    upstream_model: str
    weight: int = 1
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSnapshot:
    """An upstream credential; `sealed` is opened in the memory of a gateway alone."""

    credential: int
    sealed: str
    requests_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSnapshot:
    """An upstream that answers requests. The place of a sealed credential: `credential_place`."""

    upstream: int
    name: str
    kind: str  # anthropic | openai
    base_url: str
    credentials: tuple[CredentialSnapshot, ...] = ()
    is_enabled: bool = True
    is_draining: bool = False  # keeps the conversations that it has, and gets no new ones
    is_simulator: bool = False
    send_request_id: bool = False
    on_disconnect: str = "cancel"  # cancel | drain
    # Caps of ours over all tenants and gateways; None: none, and then nothing is asked of Redis.
    requests_per_minute: int | None = None
    concurrency: int | None = None
    connect_timeout_seconds: float = 5.0
    silence_timeout_seconds: float = 300.0
    answer_timeout_seconds: float = 660.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """What an operator decides for the whole platform."""

    is_claude_only: bool = False  # /v1/messages serves no other models
    allowed_features: tuple[str, ...] = ()  # for all tiers, of contracts.features.FEATURES
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneSnapshot:
    """All of ``tp:plane``. Each hash field is one of these mappings or lists as JSON."""

    tiers: Mapping[str, TierSnapshot]
    models: Mapping[str, ModelSnapshot]
    prices: tuple[PriceSet, ...]
    routes: Mapping[str, tuple[Candidate, ...]]  # by canonical model
    upstreams: Mapping[str, UpstreamSnapshot]  # by number as text
    switches: Switches = Switches()


PLANE_FIELDS: Mapping[str, Any] = {
    "tiers": dict[str, TierSnapshot],
    "models": dict[str, ModelSnapshot],
    "prices": tuple[PriceSet, ...],
    "routes": dict[str, tuple[Candidate, ...]],
    "upstreams": dict[str, UpstreamSnapshot],
    "switches": Switches,
}
# A release that did not know them yet left them out.
PLANE_DEFAULTS: Mapping[str, Any] = {"switches": Switches()}


def credential_place(credential: int) -> str:
    """The associated data under which an upstream credential is sealed."""
    return f"billing_upstream_credential.sealed.{credential}"
