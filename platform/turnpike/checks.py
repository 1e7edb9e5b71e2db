"""What the platform refuses to run with: weak secrets, open debug pages, a hidden module."""

import ipaddress
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.core.checks import Error, Tags, register
from django.core.exceptions import ImproperlyConfigured

from turnpike.env import ROOT, Env, env
from turnpike.kernel import hashing, sealing

SECRET_KEY_LENGTH_MIN = 32
DISTINCT_CHARACTERS_MIN = 8
TOKEN_LENGTH_MIN = 20
# Words of examples; whoever copied one has not chosen a secret.
WEAK_WORDS = ("django-insecure", "changeme", "change-me", "your-secret", "secret-key-here")


def refuse_unsafe() -> None:
    """Stop the start-up when settings are unsafe. Raises ImproperlyConfigured naming all."""
    problems = list(problems_of(env()))
    if problems:
        raise ImproperlyConfigured(" ".join(problems))


def problems_of(variables: Env) -> Iterator[str]:
    """What is wrong with an environment, one sentence each, without the values."""
    yield from _secret_problems(variables)
    yield from _exposure_problems(variables)
    yield from _payment_problems(variables)
    if (ROOT / "platform" / "__init__.py").exists():
        yield "platform/__init__.py hides Python's own module `platform`: delete it."


def _secret_problems(variables: Env) -> Iterator[str]:
    if is_weak(variables.secret_key):
        yield f"SECRET_KEY must be random and have {SECRET_KEY_LENGTH_MIN} characters or more."
    try:
        peppers = hashing.parse_peppers(variables.key_peppers)
    except ValueError as error:
        yield f"KEY_PEPPERS: {error}"
    else:
        if any(is_weak(pepper.decode()) for pepper in peppers.values()):
            yield "KEY_PEPPERS has one that is not random."
    try:
        sealing.parse_master_keys(variables.master_keys)
    except ValueError as error:
        yield f"MASTER_KEYS: {error}"
    if variables.metrics_token and len(variables.metrics_token) < TOKEN_LENGTH_MIN:
        yield f"METRICS_TOKEN must have {TOKEN_LENGTH_MIN} characters or more."


def _exposure_problems(variables: Env) -> Iterator[str]:
    public = urlsplit(variables.public_base_url)
    is_local = is_loopback(public.hostname or "")
    if public.scheme not in ("http", "https") or not public.hostname:
        yield "PUBLIC_BASE_URL must be an http or https address."
    elif public.scheme == "http" and not is_local:
        yield "PUBLIC_BASE_URL must be https: plain http is accepted on loopback only."
    if variables.debug and not (is_local and is_loopback(variables.bind_host)):
        yield "DEBUG shows settings and code: it is accepted on loopback only."
    if "*" in variables.allowed_hosts:
        yield "ALLOWED_HOSTS must name its hosts; * accepts any."
    if variables.simulator_control and variables.anthropic_api_key:
        yield "SIMULATOR_CONTROL lets clients break requests: not beside ANTHROPIC_API_KEY."
    if variables.simulator_control and not is_local:
        yield "SIMULATOR_CONTROL is for tests on loopback only."


def _payment_problems(variables: Env) -> Iterator[str]:
    secrets = variables.stripe_webhook_secrets
    if variables.stripe_api_key and not secrets:
        yield "STRIPE_WEBHOOK_SECRETS must be set beside STRIPE_API_KEY: credit comes by webhook."
    if any(len(secret) < TOKEN_LENGTH_MIN for secret in secrets):
        yield f"STRIPE_WEBHOOK_SECRETS has one of fewer than {TOKEN_LENGTH_MIN} characters."
    base = urlsplit(variables.stripe_api_base)
    if (
        variables.stripe_api_base
        and base.scheme != "https"
        and not is_loopback(base.hostname or "")
    ):
        yield "STRIPE_API_BASE must be https: plain http is accepted on loopback only."


def is_weak(secret: str) -> bool:
    """Whether a secret is short, repetitive or copied from an example."""
    lowered = secret.lower()
    return (
        len(secret) < SECRET_KEY_LENGTH_MIN
        or len(set(secret)) < DISTINCT_CHARACTERS_MIN
        or any(word in lowered for word in WEAK_WORDS)
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@register(Tags.security)
def check_environment(**_arguments: Any) -> list[Error]:
    """The same for Django's own check command."""
    return [Error(problem, id="turnpike.E001") for problem in problems_of(env())]
