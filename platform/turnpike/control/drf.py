"""Base views of the management API: who calls, in whose rows, answered how.

A view derives from TenantView (a tenant's people and management keys) or OperatorView (staff),
names the power that each method needs in `powers`, and reads `self.caller`. Everything else is done
here: authentication, the tenant's scope around the handler, Idempotency-Key on POST, problem+json,
request ids, and `effective` in the answers to changes.
"""

import ipaddress
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, ClassVar

from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string
from rest_framework import exceptions, serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from turnpike.control import idempotency
from turnpike.control.caller import Caller, Power
from turnpike.control.problems import problem_json
from turnpike.control.publication import Publication, watch_publication
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.env import env
from turnpike.kernel import ids
from turnpike.kernel.errors import NotAuthenticated, PermissionDenied

__all__ = [
    "ControlView",
    "EffectiveSerializer",
    "OneForm",
    "OperatorView",
    "PublicView",
    "StrictSerializer",
    "TenantView",
    "client_address",
    "problem_json",
]

# By name, because accounts stands above control: the views know that somebody authenticates.
TENANT_AUTHENTICATION = (
    "accounts.api.auth.KeyAuthentication",
    "accounts.api.auth.MemberAuthentication",
)
PUBLIC_AUTHENTICATION = ("accounts.api.auth.VisitorAuthentication",)
OPERATOR_AUTHENTICATION = ("accounts.api.auth.OperatorAuthentication",)

REQUEST_ID_HEADER = "request-id"
REPLAYED_HEADER = "idempotency-replayed"


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer of input that refuses properties which it does not know."""

    def to_internal_value(self, data: Any) -> Any:
        """The validated values; an unknown property is an error on that property."""
        if isinstance(data, Mapping):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError(
                    {str(name)[:64]: ["This property is not known here."] for name in unknown[:20]}
                )
        return super().to_internal_value(data)


class EffectiveSerializer(serializers.Serializer[Any]):
    """Mixed into the answers to changes."""

    effective = serializers.BooleanField(
        help_text="The change holds from the next request on; false: it will within minutes."
    )


class OneForm(DefaultContentNegotiation):
    """Answers have one form each, whatever a client says that it accepts."""

    def select_renderer(
        self, _request: Request, renderers: Any, _format_suffix: str | None = None
    ) -> Any:
        """The first one."""
        return renderers[0], renderers[0].media_type


class ControlView(APIView):
    """What all views of the management API share. Use one of the subclasses."""

    authentication_names: ClassVar[tuple[str, ...]] = ()
    permission_classes = []
    powers: ClassVar[Mapping[str, Power]] = {}
    # Whether answers to changes say so in a field `effective`.
    says_effective: ClassVar[bool] = True
    # Whether a POST moves money: then it must carry an Idempotency-Key.
    moves_money: ClassVar[bool] = False

    def get_authenticators(self) -> list[BaseAuthentication]:
        """The authentication classes, imported by name."""
        return [import_string(name)() for name in self.authentication_names]

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Give every request an id and its client's address before anything can fail."""
        prepared = super().initialize_request(request, *args, **kwargs)
        prepared.request_id = ids.public_id(ids.REQUEST, ids.uuid7())  # type: ignore[attr-defined]
        return prepared

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        """Name the request in the answer and keep every answer out of caches."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response[REQUEST_ID_HEADER] = getattr(request, "request_id", "")
        response["cache-control"] = "no-store"
        return response

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """DRF's own order of events, with the handler run inside the caller's scope."""
        self.args, self.kwargs, self.headers = args, kwargs, self.default_response_headers
        self.request = prepared = self.initialize_request(request, *args, **kwargs)
        try:
            self.initial(prepared, *args, **kwargs)
            response = self._answer(prepared, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the handler turns each into an answer
            response = self.handle_exception(error)
        self.response = self.finalize_response(prepared, response, *args, **kwargs)
        return self.response

    @property
    def caller(self) -> Caller:
        """Who calls."""
        caller = self.request.auth
        assert isinstance(caller, Caller)
        return caller

    @property
    def money_key(self) -> str:
        """The Idempotency-Key of a call that moves money."""
        return idempotency.check_money_key(self.request.headers.get("idempotency-key", ""))

    def scope(self) -> AbstractContextManager[None]:
        """The transaction in which the handler runs."""
        raise exceptions.PermissionDenied

    def check_caller(self) -> None:
        """Refuse a caller who may not use this method at all."""
        raise exceptions.PermissionDenied

    def _answer(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        method = str(request.method).lower()
        if method not in self.http_method_names or not hasattr(self, method):
            raise exceptions.MethodNotAllowed(str(request.method))
        if method == "options":
            raise exceptions.MethodNotAllowed("OPTIONS")
        if request.auth is None:
            raise NotAuthenticated("Sign in, or send a management key.")
        self.check_caller()
        if method == "post" and self.moves_money:
            assert self.money_key
        with watch_publication() as publication:
            with self.scope():
                response, claim = self._answer_once(request, publication, *args, **kwargs)
            self._say_effective(response, claim, publication)
        return response

    def _answer_once(
        self, request: Request, publication: Publication, *args: Any, **kwargs: Any
    ) -> tuple[Response, idempotency.IdempotentAnswer | None]:
        handler = getattr(self, str(request.method).lower())
        key = request.headers.get("idempotency-key")
        if request.method != "POST" or key is None:
            return handler(request, *args, **kwargs), None
        claim = idempotency.claim_key(
            tenant=self.caller.tenant,
            actor=self.caller.actor,
            key=key,
            request_digest=idempotency.digest_request(
                method="POST", path=request.path, body=request.body
            ),
        )
        if isinstance(claim, idempotency.Replay):
            return Response(
                claim.body, status=claim.status, headers={REPLAYED_HEADER: "true"}
            ), None
        response = handler(request, *args, **kwargs)
        if publication.planned and self.says_effective and isinstance(response.data, dict):
            response.data["effective"] = True
        idempotency.keep_answer(claim, status=response.status_code, body=response.data)
        return response, claim

    def _say_effective(
        self,
        response: Response,
        claim: idempotency.IdempotentAnswer | None,
        publication: Publication,
    ) -> None:
        if not publication.planned or not isinstance(response.data, dict):
            return
        response.data["effective"] = publication.is_effective
        if claim is not None and not publication.is_effective:
            # The answer was stored before the commit and said what almost always comes true.
            with self.scope():
                idempotency.keep_answer(claim, status=response.status_code, body=response.data)


class TenantView(ControlView):
    """A view for members (session) and management keys of a tenant; sees its rows alone."""

    authentication_names = TENANT_AUTHENTICATION

    def check_caller(self) -> None:
        """Deny by default: a method without a power in `powers` is open to nobody."""
        power = self.powers.get(str(self.request.method))
        if power is None or not self.caller.has_power(power):
            raise PermissionDenied(f"This needs the power {power or 'nobody has'}.")

    def scope(self) -> AbstractContextManager[None]:
        """The rows of the caller's tenant."""
        assert self.caller.tenant is not None
        return tenant_scope(self.caller.tenant)


class OperatorView(ControlView):
    """A view for the platform's staff; sees the rows of all tenants."""

    authentication_names = OPERATOR_AUTHENTICATION

    def check_caller(self) -> None:
        """Only operators come in."""
        if not self.caller.is_operator:
            raise PermissionDenied("This is for operators of the platform.")

    def scope(self) -> AbstractContextManager[None]:
        """The rows of all tenants."""
        return platform_scope(f"operator {self.caller.actor} at {type(self).__name__}")


class PublicView(ControlView):
    """A view for anybody, signed in or not; its service chooses whose rows it sees."""

    authentication_names = PUBLIC_AUTHENTICATION

    def check_caller(self) -> None:
        """Everybody comes in."""

    def scope(self) -> AbstractContextManager[None]:
        """A transaction that sees no tenant's rows."""
        return transaction.atomic()


@cache
def _trusted_networks() -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in env().trusted_proxies)


def client_address(request: HttpRequest | Request) -> str:
    """The client's address: the peer, or whom the trusted proxies in front of us name."""
    peer = str(request.META.get("REMOTE_ADDR", ""))
    forwarded = str(request.META.get("HTTP_X_FORWARDED_FOR", ""))
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
    while hops and _is_trusted(peer):
        peer = hops.pop()
    return peer if _is_address(peer) else ""


def _is_trusted(text: str) -> bool:
    return _is_address(text) and any(
        ipaddress.ip_address(text) in network for network in _trusted_networks()
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
