"""What a body can cause: read from it before anything is sent, so that the worst can be held."""

from collections.abc import Mapping

from proxy.allowance import not_served
from proxy.api_errors import ApiError
from proxy.body import MessagesBody
from turnpike.contracts.demand import Demand, read_demand
from turnpike.contracts.features import NotServed, Wants, read_wants


def demand_of(body: MessagesBody) -> Demand:
    """The demand of a checked body. Raises ApiError 400 for what nobody can price."""
    try:
        return read_demand(body.fields, body.raw, body.max_tokens)
    except NotServed as error:
        raise not_served(error) from error


def wants_of(body: MessagesBody) -> Wants:
    """What a checked body asks for beyond plain messages. Raises ApiError 400."""
    try:
        return read_wants(body.fields)
    except NotServed as error:
        raise not_served(error) from error


def refuse_denied_betas(headers: Mapping[bytes, bytes], denied: tuple[str, ...]) -> None:
    """Refuse beta values that the tier denies; all others are an open list. Raises ApiError 400."""
    if not denied:
        return
    values = [
        value.strip() for value in headers.get(b"anthropic-beta", b"").decode("latin-1").split(",")
    ]
    refused = [value for value in values if value in denied]
    if refused:
        names = ", ".join(f"`{value}`" for value in refused)
        raise ApiError(
            400,
            "invalid_request_error",
            f"Unexpected value(s) {names} for the `anthropic-beta` header",
        )
