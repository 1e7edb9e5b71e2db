"""InferenceAuthentication: API keys on the paths below /v1 that the control plane answers."""

from dataclasses import dataclass
from http import HTTPStatus

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.api.auth import check_failures, count_failure, is_usable, note_use, read_secret
from accounts.queries import find_key_by_secret
from accounts.snapshots import key_of, who_of
from turnpike.contracts.snapshots import SCOPE_MESSAGES, KeySnapshot, TenantWho
from turnpike.contracts.standing import refusal_of_key
from turnpike.control.caller import Caller
from turnpike.control.drf import client_address
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock
from turnpike.kernel.errors import NotAuthenticated, PermissionDenied

BAD_KEY = "invalid x-api-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceCaller(Caller):
    """A program with an API key: no powers over the account, but the key's own rights."""

    key: KeySnapshot
    who: TenantWho


class InferenceAuthentication(BaseAuthentication):
    """An API key in `x-api-key` or `Authorization: Bearer`, judged by the data plane's own rule."""

    def authenticate(self, request: Request) -> tuple[Caller, Caller]:
        """The caller behind the key. Raises NotAuthenticated or PermissionDenied."""
        secret = read_secret(request)
        if secret is None:
            raise NotAuthenticated("x-api-key header is required")
        address = client_address(request)
        check_failures(address)
        with platform_scope("accounts.authenticate_inference"):
            row = find_key_by_secret(secret, peppers=env().peppers)
            if row is None or not is_usable(row):
                count_failure(address)
                raise NotAuthenticated(BAD_KEY)
            key, who = key_of(row), who_of(row.tenant)
            note_use(row)
        refused = refusal_of_key(
            key, who, scope=SCOPE_MESSAGES, address=address, at_us=clock.now_us()
        )
        if refused is not None and refused.status == HTTPStatus.UNAUTHORIZED:
            raise NotAuthenticated(refused.message)
        if refused is not None:
            raise PermissionDenied(refused.message)
        caller = InferenceCaller(
            actor=key.key_id,
            tenant=key.tenant,
            address=address,
            request_id=str(getattr(request, "request_id", "")),
            key=key,
            who=who,
        )
        return caller, caller

    def authenticate_header(self, _request: Request) -> str:
        """What a client without credentials is told to send."""
        return "Bearer"
