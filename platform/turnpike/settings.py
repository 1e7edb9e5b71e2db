"""The only settings module: every value from the environment, with a safe default."""

import gc
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from turnpike.control.mail_backend import parse_mail_url
from turnpike.env import ROOT, env
from turnpike.kernel import logs
from turnpike.kernel.cluster_url import is_cluster_url
from turnpike.schedule import BATCH_QUEUE, BEAT_SCHEDULE, USAGE_QUEUE, WEBHOOK_QUEUE

# To look for garbage while all apps are loaded would be a fifth of what a start costs: until ready.
gc.disable()

ENV = env()

BASE_DIR = ROOT
WEB = Path(__file__).resolve().parent / "web"
DEBUG = ENV.debug
SECRET_KEY = ENV.secret_key
PUBLIC_BASE_URL = ENV.public_base_url.rstrip("/")
_PUBLIC = urlsplit(PUBLIC_BASE_URL)
IS_HTTPS = _PUBLIC.scheme == "https"
ALLOWED_HOSTS = [
    _PUBLIC.hostname or "localhost",
    "127.0.0.1",
    "localhost",
    "[::1]",
    *ENV.allowed_hosts,
]

INSTALLED_APPS = [
    "turnpike.apps.TurnpikeConfig",
    "accounts.apps.AccountsConfig",
    "billing.apps.BillingConfig",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "django_cotton.apps.SimpleAppConfig",
    "template_partials.apps.SimpleAppConfig",
    "csp",
    "rest_framework",
    "drf_spectacular",
]

MIDDLEWARE = [
    "servestatic.middleware.ServeStaticMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "turnpike.web.operators.viewing.refuse_changes_while_viewing",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "turnpike.urls"
ASGI_APPLICATION = "turnpike.asgi.control"
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
APPEND_SLASH = False
# Components and fragments both wrap the loaders, and each undoes the other unless spelt out.
_LOADERS = [
    "django_cotton.cotton_loader.Loader",
    "django.template.loaders.filesystem.Loader",
    "django.template.loaders.app_directories.Loader",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [WEB / "templates"],
        "OPTIONS": {
            "loaders": [
                (
                    "template_partials.loader.Loader",
                    [("django.template.loaders.cached.Loader", _LOADERS)],
                )
            ],
            "builtins": [
                "django.templatetags.i18n",
                "django.templatetags.static",
                "django_cotton.templatetags.cotton",
                "template_partials.templatetags.partials",
                "turnpike.web.filters",
            ],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "turnpike.web.shell.shell",
            ],
        },
    }
]
COTTON_SNAKE_CASED_NAMES = False

# Sign-in. People come by invitation, so nobody signs up by themselves.
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/console/"
ACCOUNT_ADAPTER = "accounts.sign_in.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = "/accounts/login/"
ACCOUNT_SESSION_REMEMBER = None
ACCOUNT_REAUTHENTICATION_TIMEOUT = 1_800
MFA_ADAPTER = "accounts.sign_in.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_FORMS = {
    "add_webauthn": "accounts.console.passkeys.AddPasskeyForm",
    "edit_webauthn": "accounts.console.passkeys.RenamePasskeyForm",
}
# Browsers themselves allow plain http on localhost alone.
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not IS_HTTPS
MFA_TOTP_ISSUER = "Turnpike"
REQUIRE_SECOND_FACTOR = ENV.require_second_factor
USERSESSIONS_TRACK_ACTIVITY = False
# One identity provider of the operator's choice; without it nothing of this is offered. It signs in
# people who are here already, by an address that it has verified.
SOCIALACCOUNT_ADAPTER = "accounts.sign_in.ProviderAdapter"
SOCIALACCOUNT_EMAIL_AUTHENTICATION = True
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": ENV.identity_providers}}


def _database(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "turnpike",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", "") or parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": {**options, **_pool()},
        # A pool keeps connections itself; without one each thread keeps its own for a minute.
        "CONN_MAX_AGE": 0 if ENV.database_pool_max else 60,
        "CONN_HEALTH_CHECKS": True,
    }


def _pool() -> dict[str, object]:
    """Under ASGI every request may run in another thread, so the process shares a bounded pool."""
    if not ENV.database_pool_max:
        return {}
    return {"pool": {"min_size": 1, "max_size": ENV.database_pool_max, "timeout": 10}}


_DATABASE_URL = (
    ENV.database_owner_url if ENV.database_as_owner and ENV.database_owner_url else ENV.database_url
)
DATABASES = {"default": _database(_DATABASE_URL)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _redis_database(url: str, number: int, *, variable: str) -> str:
    """The same server, another database: ``?db=`` on a unix socket, the path elsewhere."""
    if is_cluster_url(url):
        raise ImproperlyConfigured(
            f"REDIS_URL names a Redis Cluster, which has one database: set {variable} to another "
            "server."
        )
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}?db={number}"
    return parts._replace(path=f"/{number}").geturl()


REDIS_URL = ENV.redis_url
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": ENV.cache_url or _redis_database(REDIS_URL, 2, variable="CACHE_URL"),
    }
}
_BROKER = ENV.celery_broker_url or _redis_database(REDIS_URL, 1, variable="CELERY_BROKER_URL")
CELERY_BROKER_URL = (
    _BROKER.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    if _BROKER.startswith("unix://")
    else _BROKER
)
# Celery takes CELERY_BROKER_URL from the environment, as it is spelt there, before this setting;
# these two come before both.
CELERY_BROKER_READ_URL = CELERY_BROKER_WRITE_URL = CELERY_BROKER_URL
WEBHOOKS_ALLOW_LOOPBACK = ENV.webhooks_allow_loopback
CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE
CELERY_BEAT_SCHEDULE_FILENAME = str(ENV.state_dir / "beat-schedule")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_ROUTES = {
    "billing.tasks.ingest_usage": {"queue": USAGE_QUEUE},
    "billing.tasks.run_batches": {"queue": BATCH_QUEUE},
    "accounts.tasks.deliver_webhooks": {"queue": WEBHOOK_QUEUE},
}
CELERY_TASK_TIME_LIMIT = 300
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 600, "socket_timeout": 5}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_SEND_TASK_EVENTS = False

# Mail: one server for all of it, or files that the operator's console shows.
_MAIL = parse_mail_url(ENV.mail_url or f"file:{ENV.state_dir / 'mail'}")
EMAIL_BACKEND = _MAIL.backend
EMAIL_FILE_PATH = _MAIL.folder
EMAIL_HOST, EMAIL_PORT = _MAIL.host, _MAIL.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL.user, _MAIL.password
EMAIL_USE_TLS, EMAIL_USE_SSL = _MAIL.has_starttls, _MAIL.is_tls
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = ENV.mail_from or f"Turnpike <turnpike@{_PUBLIC.hostname or 'localhost'}>"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文"), ("ru", "Русский")]
LANGUAGE_COOKIE_NAME = "turnpike_language"
LOCALE_PATHS = [WEB / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True

# Served from where they lie, each under a name that changes with its content: nothing to collect.
STATIC_URL = "/static/"
STATICFILES_DIRS = [WEB / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "turnpike.web.assets.AssetStorage"},
}
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = False
SERVESTATIC_MAX_AGE = 86_400
SERVESTATIC_ALLOW_ALL_ORIGINS = False

_OWN = ("'self'",)
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ("'none'",),
        "script-src": _OWN,
        "style-src": _OWN,
        "font-src": _OWN,
        "img-src": _OWN,
        "connect-src": _OWN,
        # Browsers hold a form's redirections to this, too: that to the identity provider.
        "form-action": (*_OWN, *ENV.identity_origins, *ENV.payment_origins),
        "base-uri": ("'none'",),
        "frame-ancestors": ("'none'",),
    }
}

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_NAME = "__Host-session" if IS_HTTPS else "turnpike_session"
CSRF_COOKIE_NAME = "__Host-csrf" if IS_HTTPS else "turnpike_csrf"
SESSION_COOKIE_HTTPONLY = True
# TLS ends at the reverse proxy; its word counts only where one is named.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENV.trusted_proxies else None
SECURE_HSTS_SECONDS = 31_536_000 if IS_HTTPS else 0
CSRF_TRUSTED_ORIGINS = [PUBLIC_BASE_URL]
CSRF_FAILURE_VIEW = "turnpike.web.errors.csrf_refused"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "turnpike.control.schema.ControlSchema",
    "EXCEPTION_HANDLER": "turnpike.control.drf.problem_json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Turnpike management API",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {
        "TenantStatus": "accounts.models.TenantStatus",
        "Role": "accounts.models.Role",
        "GivenRole": "accounts.api.admin_people.GIVEN_WORDS",
        "InviteStatus": "accounts.models.InviteStatus",
        "ApiKeyStatus": "accounts.models.ApiKeyStatus",
        "ApiKeyKind": "accounts.models.ApiKey.Kind",
        "UpstreamKind": "billing.models.upstreams.Upstream.Kind",
        "UpstreamDisconnect": "billing.models.upstreams.Upstream.Disconnect",
        "TenantDisconnect": "billing.api.features.ON_DISCONNECT",
        "UpstreamState": "billing.api.upstreams.STATES",
        "InvoiceKind": "billing.models.invoices.Invoice.Kind",
        "InvoiceStatus": "billing.models.invoices.Invoice.Status",
        "InvoiceLineKind": "billing.models.invoices.InvoiceLine.Kind",
        "PaymentStatus": "billing.models.payments.Payment.Status",
        "DeliveryState": "accounts.models.WebhookDelivery.State",
    },
}

LOGGING_CONFIG = None
logs.set_up_logs(level=ENV.log_level, is_json=ENV.log_json)
