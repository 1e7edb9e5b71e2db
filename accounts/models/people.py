"""Who may call: User, Tenant, Workspace, Member, Invite, ApiKey, AuditEvent.

The database keeps the rules that must never break: see the constraints here, and the row level
security and the append-only trigger in the first migration.
"""

from datetime import datetime
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from turnpike.contracts.snapshots import (
    KIND_API,
    KIND_MANAGEMENT,
    KIND_PLAYGROUND,
    LIMIT_NAMES,
    PERIOD_DAY,
    PERIOD_MONTH,
    Budget,
    Limits,
)
from turnpike.control.models import PublicModel, TimestampedModel
from turnpike.kernel import ids, money

NAME_LENGTH_MAX = 100
EMAIL_LENGTH_MAX = 254
REASON_LENGTH_MAX = 500
SCOPES_MAX = 32
MODELS_MAX = 64
MODEL_NAME_LENGTH_MAX = 128
IP_RANGES_MAX = 32


class UserManager(BaseUserManager["User"]):
    """Makes users; emails are kept in lower case, so that one address is one person."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A person with a password, or one who cannot sign in with any (None)."""
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """An operator who may see everything."""
        return self.create_user(
            email, password, **{"is_staff": True, "is_superuser": True, **fields}
        )

    def get_by_natural_key(self, username: str | None) -> "User":
        """The user of an email address, in whatever case it is typed."""
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser, PermissionsMixin, PublicModel):
    """A person. Belongs to tenants through Member; staff are the platform's operators."""

    public_prefix = ids.USER

    email = models.EmailField(max_length=EMAIL_LENGTH_MAX, unique=True)
    name = models.CharField(max_length=NAME_LENGTH_MAX, blank=True)
    # Chosen in a page's menu; empty: nobody chose, and letters go out in the organization's.
    language = models.CharField(max_length=10, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(email=Lower("email")), name="user_email_is_lower"),
        ]

    def __str__(self) -> str:
        return self.public_id


class BudgetedModel(models.Model):
    """What a scope may spend in a UTC day and month; null: no budget here.

    A budget that does not block refuses nothing; alerts alone tell of it.
    """

    daily_budget_nano = models.BigIntegerField(null=True, blank=True)
    monthly_budget_nano = models.BigIntegerField(null=True, blank=True)
    daily_budget_blocks = models.BooleanField(default=True, db_default=True)
    monthly_budget_blocks = models.BooleanField(default=True, db_default=True)

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(
                condition=(Q(daily_budget_nano__isnull=True) | Q(daily_budget_nano__gte=0))
                & (Q(monthly_budget_nano__isnull=True) | Q(monthly_budget_nano__gte=0)),
                name="%(class)s_budgets_not_negative",
            ),
        ]

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets that block, in micros rounded down, as the data plane reads them."""
        amounts = (
            (PERIOD_DAY, self.daily_budget_nano, self.daily_budget_blocks),
            (PERIOD_MONTH, self.monthly_budget_nano, self.monthly_budget_blocks),
        )
        return tuple(
            Budget(period=period, limit_micro=money.micros_down(nanos))
            for period, nanos, blocks in amounts
            if nanos is not None and blocks
        )


class LimitedModel(BudgetedModel):
    """Limits of one scope below the tenant's; null: not limited here."""

    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveBigIntegerField(null=True, blank=True)
    input_tokens_per_minute = models.PositiveBigIntegerField(null=True, blank=True)
    output_tokens_per_minute = models.PositiveBigIntegerField(null=True, blank=True)
    concurrency = models.PositiveIntegerField(null=True, blank=True)
    burst_seconds = models.PositiveIntegerField(null=True, blank=True)

    class Meta(BudgetedModel.Meta):
        abstract = True

    @property
    def limits(self) -> Limits:
        """The limits as the data plane reads them."""
        return Limits(**{name: getattr(self, name) for name in LIMIT_NAMES})


class TenantStatus(models.TextChoices):
    """Active tenants are served; suspended ones are refused with 403; closed ones have no keys."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"


class Tenant(PublicModel, BudgetedModel):
    """A customer. `policy_version` rises with every change that admission must know of."""

    public_prefix = ids.TENANT

    name = models.CharField(max_length=NAME_LENGTH_MAX)
    status = models.CharField(
        max_length=9, choices=TenantStatus.choices, default=TenantStatus.ACTIVE
    )
    status_reason = models.CharField(max_length=REASON_LENGTH_MAX, blank=True)
    policy_version = models.BigIntegerField(default=1)

    class Meta(BudgetedModel.Meta):
        constraints = [
            *BudgetedModel.Meta.constraints,
            models.CheckConstraint(condition=~Q(name=""), name="tenant_has_a_name"),
            models.CheckConstraint(
                condition=Q(status__in=TenantStatus.values), name="tenant_status_is_known"
            ),
            models.CheckConstraint(
                condition=Q(policy_version__gte=1), name="tenant_policy_version_is_positive"
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class Workspace(PublicModel, LimitedModel):
    """A part of a tenant with keys, limits and budgets of its own; one of them is the default."""

    public_prefix = ids.WORKSPACE

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="workspaces")
    name = models.CharField(max_length=NAME_LENGTH_MAX)
    is_default = models.BooleanField(default=False)
    archived_at = models.DateTimeField(null=True, blank=True)
    # What programs of the Admin API note on it; nothing here depends on them.
    display_color = models.CharField(max_length=7, blank=True, default="", db_default="")
    tags = models.JSONField(blank=True, default=dict, db_default={})

    class Meta(LimitedModel.Meta):
        constraints = [
            *LimitedModel.Meta.constraints,
            models.CheckConstraint(condition=~Q(name=""), name="workspace_has_a_name"),
            models.CheckConstraint(
                condition=Q(is_default=False) | Q(archived_at__isnull=True),
                name="workspace_default_is_never_archived",
            ),
            models.UniqueConstraint(
                fields=["tenant"], condition=Q(is_default=True), name="workspace_one_default"
            ),
            models.UniqueConstraint(
                fields=["tenant", "name"],
                condition=Q(archived_at__isnull=True),
                name="workspace_name_is_unique_while_in_use",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class Role(models.TextChoices):
    """What a member may do; accounts.access has the matrix."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    BILLING = "billing"
    VIEWER = "viewer"


class Member(TimestampedModel):
    """A person's place in a tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="members")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=9, choices=Role.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="member_once_per_tenant"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="member_role_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.tenant_id} as {self.role}"


class InviteStatus(models.TextChoices):
    """What became of an invitation."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    EXPIRED = "expired"
    DELETED = "deleted"


class Invite(PublicModel):
    """An invitation by link. Only a hash of the link's token is kept."""

    public_prefix = ids.INVITE

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="invites")
    email = models.EmailField(max_length=EMAIL_LENGTH_MAX)
    role = models.CharField(max_length=9, choices=Role.choices)
    token_hash = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(role__in=Role.values), name="invite_role_is_known"),
            models.CheckConstraint(condition=Q(email=Lower("email")), name="invite_email_is_lower"),
            models.CheckConstraint(
                condition=Q(accepted_at__isnull=True) | Q(revoked_at__isnull=True),
                name="invite_ends_one_way",
            ),
            models.UniqueConstraint(
                fields=["tenant", "email"],
                condition=Q(accepted_at__isnull=True, revoked_at__isnull=True),
                name="invite_one_pending_per_address",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    def status_at(self, now: datetime) -> InviteStatus:
        """What the invitation is at an instant."""
        if self.accepted_at is not None:
            return InviteStatus.ACCEPTED
        if self.revoked_at is not None:
            return InviteStatus.DELETED
        return InviteStatus.PENDING if now < self.expires_at else InviteStatus.EXPIRED


class ApiKeyStatus(models.TextChoices):
    """Whether a key works, and if not, whether it can again."""

    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ApiKey(PublicModel, LimitedModel):
    """A key of a program. The secret is shown once; its HMAC, its head and its tail are kept."""

    public_prefix = ids.API_KEY

    class Kind(models.TextChoices):
        """Inference keys call models; management keys call the management API and nothing else."""

        API = KIND_API
        MANAGEMENT = KIND_MANAGEMENT

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="api_keys")
    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="api_keys")
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.API)
    name = models.CharField(max_length=NAME_LENGTH_MAX)
    digest = models.CharField(max_length=64, unique=True)
    pepper_id = models.CharField(max_length=32)
    hint = models.CharField(max_length=20)
    created_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    scopes = ArrayField(models.CharField(max_length=32))
    allowed_models = ArrayField(
        models.CharField(max_length=MODEL_NAME_LENGTH_MAX), null=True, blank=True
    )
    ip_ranges = ArrayField(models.CharField(max_length=49), default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    replaced_by = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="replaces"
    )
    grace_ends_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    # Keys of kind `playground` alone: what their secret is derived from, so that nobody keeps it.
    generation = models.PositiveIntegerField(null=True, blank=True)

    class Meta(LimitedModel.Meta):
        constraints = [
            *LimitedModel.Meta.constraints,
            models.CheckConstraint(condition=~Q(name=""), name="apikey_has_a_name"),
            models.CheckConstraint(
                condition=Q(digest__regex=r"^[0-9a-f]{64}$"), name="apikey_digest_is_hex"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=[KIND_API, KIND_MANAGEMENT], generation__isnull=True)
                | Q(kind=KIND_PLAYGROUND, generation__isnull=False),
                name="apikey_kind_is_known",
            ),
            models.UniqueConstraint(
                fields=["workspace", "generation"], name="apikey_one_per_generation"
            ),
            models.UniqueConstraint(
                fields=["workspace"],
                condition=Q(kind=KIND_PLAYGROUND, revoked_at__isnull=True),
                name="apikey_one_playground_key_in_use",
            ),
            models.CheckConstraint(
                condition=Q(scopes__len__gte=1, scopes__len__lte=SCOPES_MAX),
                name="apikey_scopes_are_bounded",
            ),
            models.CheckConstraint(
                condition=Q(allowed_models__isnull=True) | Q(allowed_models__len__lte=MODELS_MAX),
                name="apikey_models_are_bounded",
            ),
            models.CheckConstraint(
                condition=Q(ip_ranges__len__lte=IP_RANGES_MAX), name="apikey_ip_ranges_are_bounded"
            ),
            models.CheckConstraint(
                condition=Q(replaced_by__isnull=True, grace_ends_at__isnull=True)
                | Q(replaced_by__isnull=False, grace_ends_at__isnull=False),
                name="apikey_grace_means_replaced",
            ),
            models.CheckConstraint(
                condition=Q(replaced_by__isnull=True) | ~Q(replaced_by=F("id")),
                name="apikey_does_not_replace_itself",
            ),
        ]
        indexes = [
            models.Index(
                fields=["grace_ends_at"],
                condition=Q(grace_ends_at__isnull=False, revoked_at__isnull=True),
                name="apikey_in_grace",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def ends_at(self) -> datetime | None:
        """When the key stops by itself: at its expiry or the end of its grace, what comes first."""
        ends = [at for at in (self.expires_at, self.grace_ends_at) if at is not None]
        return min(ends, default=None)

    def status_at(self, now: datetime) -> ApiKeyStatus:
        """What the key is at an instant; a replaced key expires with its grace."""
        if self.revoked_at is not None:
            return ApiKeyStatus.REVOKED
        if self.ends_at is not None and self.ends_at <= now:
            return ApiKeyStatus.EXPIRED
        return ApiKeyStatus.ACTIVE if self.disabled_at is None else ApiKeyStatus.DISABLED


class AuditEvent(TimestampedModel):
    """Who did what to what. Append-only; `digest` is an HMAC over the row and the row before it."""

    tenant = models.ForeignKey(
        Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="audit_events"
    )
    actor = models.CharField(max_length=64)
    action = models.CharField(max_length=64)
    target = models.CharField(max_length=64)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    address = models.CharField(max_length=45, blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=REASON_LENGTH_MAX, blank=True)
    previous_digest = models.CharField(max_length=64, blank=True)
    digest = models.CharField(max_length=64)
    pepper_id = models.CharField(max_length=32)

    class Meta:
        constraints = [
            # One successor for each row: a chain that forks is broken.
            models.UniqueConstraint(
                fields=["tenant", "previous_digest"],
                name="auditevent_chain_is_a_line",
                nulls_distinct=False,
            ),
        ]
        indexes = [models.Index(fields=["tenant", "-id"], name="auditevent_by_tenant")]

    def __str__(self) -> str:
        return f"{self.action} {self.target}"
