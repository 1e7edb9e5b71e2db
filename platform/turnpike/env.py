"""Every environment variable of the control plane, typed; a bad value stops the start-up.

The data plane reads its own few in `proxy.config`. docs/configuration.md lists all of them, and a
test compares it with both files.
"""

import os
from functools import cache
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from turnpike.kernel import hashing, sealing

ROOT = Path(__file__).resolve().parents[2]
ENV_FILE = "env"


class Env(BaseSettings):
    """The environment of one process."""

    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True)

    debug: bool = Field(default=False, description="Django's debug pages; refused off loopback.")
    secret_key: str = Field(
        "", description="Signs sessions and CSRF tokens; 32 characters or more."
    )
    database_url: str = Field("", description="PostgreSQL 15+, as a role without BYPASSRLS.")
    database_owner_url: str = Field(
        "", description="The role that owns the tables; for migrations."
    )
    database_pool_max: int = Field(
        0, ge=0, le=100, description="Connections a process pools; 0: one a thread."
    )
    database_as_owner: bool = Field(
        default=False, description="Set by manage.py for schema commands."
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", description="Redis 7+ or Valkey; truth of the moment."
    )
    celery_broker_url: str = Field("", description="Empty: database 1 of REDIS_URL.")
    cache_url: str = Field("", description="Empty: database 2 of REDIS_URL.")
    key_peppers: str = Field(
        "", description="id:secret,… for hashing API keys; the first hashes new ones."
    )
    master_keys: str = Field(
        "", description="id:base64url of 32 bytes,… for sealing upstream credentials."
    )
    public_base_url: str = Field(
        "http://127.0.0.1:8000", description="Where clients and browsers reach us."
    )
    data_plane_url: str = Field(
        "", description="Where the playground finds the data plane; empty: BIND_HOST and PORT."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Beyond the host of PUBLIC_BASE_URL."
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Networks whose X-Forwarded-For counts."
    )
    bind_host: str = Field("127.0.0.1", description="The address that `manage.py up` binds.")
    port: int = Field(8000, ge=1, le=65535, description="Where `manage.py up` listens.")
    simulator_port: int = Field(0, ge=0, le=65535, description="0: PORT + 1.")
    simulator_control: bool = Field(
        default=False, description="Pass the x-simulator header on; tests only."
    )
    batch_parts_max: int = Field(
        2, ge=1, le=100, description="Parts of message batches that are worked on at once."
    )
    journal_dir: Path = Field(ROOT / "var" / "journal", description="The data plane's journal.")
    metrics_token: str = Field("", description="Opens /metrics to others than loopback.")
    require_second_factor: bool = Field(
        default=False, description="Owners and staff reach the consoles with a second factor only."
    )
    mail_url: str = Field(
        "", description="smtp://, smtps:// or file:/folder; empty: files in STATE_DIR/mail."
    )
    mail_from: str = Field("", description="Who mail is from; empty: turnpike@ the public host.")
    oidc_issuer: str = Field("", description="An OpenID Connect provider; empty: none is offered.")
    oidc_client_id: str = Field("", description="What the provider calls this platform.")
    oidc_client_secret: str = Field("", description="The secret that goes with it.")
    oidc_name: str = Field("SSO", description="What the button of the sign-in page says.")
    stripe_api_key: str = Field("", description="Takes card payments by Stripe; empty: transfers.")
    stripe_webhook_secrets: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="The signing secrets (whsec_…) of Stripe's webhooks; any of them counts."
    )
    stripe_api_base: str = Field("", description="Another address of Stripe's API; for tests.")
    webhooks_allow_loopback: bool = Field(
        default=False, description="Lets webhooks reach this machine, over http too; to develop."
    )
    anthropic_api_key: str = Field("", description="Adds Anthropic as an upstream at bootstrap.")
    state_dir: Path = Field(ROOT / "var", description="State of `manage.py up`.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_json: bool = Field(default=True, description="JSON lines; off: readable text.")

    @field_validator("allowed_hosts", "trusted_proxies", "stripe_webhook_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @property
    def identity_providers(self) -> list[dict[str, object]]:
        """The provider that people may sign in with, as allauth takes it, or none."""
        if not self.oidc_issuer:
            return []
        return [
            {
                "provider_id": "sso",
                "name": self.oidc_name,
                "client_id": self.oidc_client_id,
                "secret": self.oidc_client_secret,
                "settings": {"server_url": self.oidc_issuer, "oauth_pkce_enabled": True},
            }
        ]

    @property
    def identity_origins(self) -> tuple[str, ...]:
        """Where the sign-in form may lead besides here."""
        parts = urlsplit(self.oidc_issuer)
        return (f"{parts.scheme}://{parts.netloc}",) if self.oidc_issuer else ()

    @property
    def payment_origins(self) -> tuple[str, ...]:
        """Where the form for a top-up may lead besides here."""
        return ("https://checkout.stripe.com",) if self.stripe_api_key else ()

    @property
    def data_plane(self) -> str:
        """The data plane's address, as this process reaches it."""
        if self.data_plane_url:
            return self.data_plane_url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind_host, self.bind_host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def peppers(self) -> dict[str, bytes]:
        """The peppers by id, the one for new keys first."""
        return hashing.parse_peppers(self.key_peppers)

    @property
    def sealing_keys(self) -> dict[str, bytes]:
        """The master keys by id, the sealing one first."""
        return sealing.parse_master_keys(self.master_keys)


@cache
def env() -> Env:
    """The environment, read once; what it lacks comes from the file that `manage.py up` keeps.

    So a command in another terminal finds the secrets and the servers of the platform that runs
    here. A deployment has no such file.
    """
    state_dir = Path(os.environ.get("STATE_DIR") or ROOT / "var")
    return Env(_env_file=state_dir / ENV_FILE)
