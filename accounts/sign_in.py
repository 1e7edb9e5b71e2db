"""How django-allauth signs people in here: by invitation alone, with sealed second factors."""

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from django.http import HttpRequest

from turnpike.control.drf import client_address
from turnpike.env import env
from turnpike.kernel import sealing

SECRETS_PLACE = "mfa_authenticator.data"


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc] - it has no types
    """Nobody signs up by themselves; the client's address is the one that the platform trusts."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """People come by invitation."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """The address by which attempts are counted."""
        return client_address(request) or "unknown"


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc] - it has no types
    """Secrets of authenticators lie sealed in the database."""

    def encrypt(self, text: str) -> str:
        """Seal a secret under the first master key."""
        return sealing.seal(text, place=SECRETS_PLACE, master_keys=env().sealing_keys)

    def decrypt(self, encrypted_text: str) -> str:
        """Open a sealed secret."""
        return sealing.unseal(encrypted_text, place=SECRETS_PLACE, master_keys=env().sealing_keys)
