"""How django-allauth signs people in here: by invitation alone, with sealed second factors.

The library has no types, hence the two ignores.
"""

from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records, record_authentication
from allauth.core.exceptions import ReauthenticationRequired
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.http import HttpRequest

from accounts.models import User
from turnpike.control.drf import client_address
from turnpike.env import env
from turnpike.kernel import clock, sealing

SECRETS_PLACE = "mfa_authenticator.data"


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Nobody signs up by themselves; the client's address is the one that the platform trusts."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """People come by invitation."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """The address by which attempts are counted."""
        return client_address(request) or "unknown"


class ProviderAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """An identity provider signs in people who are here already; it makes nobody."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: object) -> bool:
        """People come by invitation."""
        return False


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Secrets of authenticators lie sealed in the database."""

    def encrypt(self, text: str) -> str:
        """Seal a secret under the first master key."""
        return sealing.seal(text, place=SECRETS_PLACE, master_keys=env().sealing_keys)

    def decrypt(self, encrypted_text: str) -> str:
        """Open a sealed secret."""
        return sealing.unseal(encrypted_text, place=SECRETS_PLACE, master_keys=env().sealing_keys)


def note_password(request: HttpRequest, user: User) -> None:
    """Who has just chosen a password has proved who they are, as by signing in with it."""
    record_authentication(request, user, method="password")


def check_proof(request: HttpRequest, user: User) -> None:
    """Raise ReauthenticationRequired unless the person proved who they are a short while ago.

    Signing in is a proof too. What is raised leads to the page that asks, and back.
    """
    records = get_authentication_records(request, user)
    proved_at = max((record["at"] for record in records), default=0)
    if clock.now_ms() / 1_000 - proved_at > app_settings.REAUTHENTICATION_TIMEOUT:
        raise ReauthenticationRequired
