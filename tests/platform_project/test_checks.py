"""The start-up refuses what is unsafe, and names it without showing it."""

import os

import pytest
from django.core.exceptions import ImproperlyConfigured

from turnpike.checks import problems_of, refuse_unsafe
from turnpike.env import Env

SAFE = {
    "secret_key": os.environ["SECRET_KEY"],
    "key_peppers": os.environ["KEY_PEPPERS"],
    "master_keys": os.environ["MASTER_KEYS"],
    "metrics_token": "",
    "public_base_url": "http://127.0.0.1:8000",
}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"secret_key": ""}, "SECRET_KEY"),
        ({"secret_key": "a" * 50}, "SECRET_KEY"),
        ({"secret_key": "django-insecure-0123456789-abcdefghij"}, "SECRET_KEY"),
        ({"key_peppers": ""}, "KEY_PEPPERS"),
        ({"key_peppers": "p1:short"}, "KEY_PEPPERS"),
        ({"key_peppers": "p1:" + "x" * 40}, "KEY_PEPPERS"),
        ({"master_keys": ""}, "MASTER_KEYS"),
        ({"master_keys": "m1:AAAA"}, "MASTER_KEYS"),
        ({"metrics_token": "guess"}, "METRICS_TOKEN"),
        ({"public_base_url": "http://turnpike.example"}, "plain http"),
        ({"public_base_url": "turnpike.example"}, "PUBLIC_BASE_URL"),
        ({"public_base_url": "https://turnpike.example", "debug": True}, "DEBUG"),
        ({"bind_host": "0.0.0.0", "debug": True}, "DEBUG"),
        ({"allowed_hosts": ("*",)}, "ALLOWED_HOSTS"),
        ({"simulator_control": True, "anthropic_api_key": "sk-ant-x"}, "SIMULATOR_CONTROL"),
        ({"stripe_api_key": "sk_test_1"}, "STRIPE_WEBHOOK_SECRETS"),
        ({"stripe_webhook_secrets": ("whsec_",)}, "STRIPE_WEBHOOK_SECRETS"),
        ({"stripe_api_base": "http://stripe.example"}, "STRIPE_API_BASE"),
        (
            {"simulator_control": True, "public_base_url": "https://turnpike.example"},
            "SIMULATOR_CONTROL",
        ),
    ],
)
def test_each_unsafe_setting_is_named_alone(change: dict[str, object], complaint: str) -> None:
    problems = list(problems_of(Env.model_validate({**SAFE, **change})))

    assert len(problems) == 1
    assert complaint in problems[0]
    secrets = [value for value in change.values() if isinstance(value, str) and len(value) > 20]
    assert all(secret not in problems[0] for secret in secrets if "http" not in secret)


def test_a_safe_environment_has_no_problems() -> None:
    assert list(problems_of(Env.model_validate(SAFE))) == []
    https = {"public_base_url": "https://turnpike.example", "bind_host": "0.0.0.0"}
    assert list(problems_of(Env.model_validate({**SAFE, **https}))) == []


def test_this_very_process_may_start() -> None:
    try:
        refuse_unsafe()
    except ImproperlyConfigured as error:  # pragma: no cover - says which
        pytest.fail(str(error))
