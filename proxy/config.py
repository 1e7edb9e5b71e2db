"""ProxyConfig.from_env(): one frozen dataclass, read once."""

import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from turnpike.kernel import hashing, sealing
from turnpike.kernel.money import NANOS_PER_MICRO, parse_amount

ROOT = Path(__file__).resolve().parents[1]
MIB = 1024 * 1024

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """What the data plane reads from its environment; docs/configuration.md explains each."""

    redis_url: str = field(repr=False)  # may hold a password
    peppers: Mapping[str, bytes] = field(repr=False)
    master_keys: Mapping[str, bytes] = field(repr=False)
    journal_dir: Path
    worker: str
    metrics_dir: Path
    journal_fsync: str = "interval"
    metrics_token: str = field(default="", repr=False)
    trusted_proxies: tuple[Network, ...] = ()
    simulator_control: bool = False
    # A lease is at least three beats, so that a blocked event loop does not lose its requests.
    lease_ms: int = 30_000
    beat_ms: int = 10_000
    reap_grace_ms: int = 10_000
    confirm_ms: int = 5_000
    resend_ms: int = 60_000
    redis_timeout_ms: int = 50
    fallback_cap_micro: int = 1_000_000
    drain_seconds: float = 25.0
    body_bytes_max: int = 32 * MIB
    upstream_connections_max: int = 1_000

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "ProxyConfig":
        """Read the environment. Raises ValueError naming the variable that is missing or bad."""
        source = os.environ if environ is None else environ
        try:
            return cls(
                redis_url=source.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
                peppers=_read(source, "KEY_PEPPERS", hashing.parse_peppers),
                master_keys=_read(source, "MASTER_KEYS", sealing.parse_master_keys),
                journal_dir=Path(source.get("JOURNAL_DIR") or ROOT / "var" / "journal"),
                metrics_dir=Path(source.get("METRICS_DIR") or ROOT / "var" / "metrics"),
                worker=f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}",
                journal_fsync=_choice(source, "JOURNAL_FSYNC", ("interval", "off", "always")),
                metrics_token=source.get("METRICS_TOKEN", ""),
                trusted_proxies=_networks(source.get("TRUSTED_PROXIES", "")),
                simulator_control=_flag(source.get("SIMULATOR_CONTROL", "")),
                lease_ms=_number(source, "LEASE_MS", 30_000),
                beat_ms=_number(source, "BEAT_MS", 10_000),
                reap_grace_ms=_number(source, "REAP_GRACE_MS", 10_000),
                confirm_ms=_number(source, "CONFIRM_MS", 5_000),
                resend_ms=_number(source, "RESEND_MS", 60_000),
                redis_timeout_ms=_number(source, "REDIS_TIMEOUT_MS", 50),
                fallback_cap_micro=parse_amount(source.get("FALLBACK_CAP") or "1")
                // NANOS_PER_MICRO,
                drain_seconds=float(_number(source, "DRAIN_SECONDS", 25)),
            )
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is not set.") from error


def _read(
    source: Mapping[str, str], name: str, parse: Callable[[str], dict[str, bytes]]
) -> dict[str, bytes]:
    try:
        return parse(source[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _choice(source: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = source.get(name) or allowed[0]
    if value not in allowed:
        raise ValueError(f"{name}: one of {', '.join(allowed)}, not {value!r}.")
    return value


def _number(source: Mapping[str, str], name: str, default: int) -> int:
    text = source.get(name) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name}: a whole number above 0, not {text!r}.")
    return int(text)


def _flag(text: str) -> bool:
    return text.strip().lower() in {"1", "true", "yes", "on"}


def _networks(text: str) -> tuple[Network, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(ipaddress.ip_network(part, strict=False) for part in parts)
    except ValueError as error:
        raise ValueError(f"TRUSTED_PROXIES: {error}") from error
