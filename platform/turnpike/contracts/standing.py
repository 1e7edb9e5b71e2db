"""What a known API key may not do: one rule for both planes that serve tenants' programs."""

import ipaddress
from dataclasses import dataclass

from turnpike.contracts.snapshots import KIND_MANAGEMENT, STATUS_ACTIVE, KeySnapshot, TenantWho

AUTHENTICATION, PERMISSION = "authentication_error", "permission_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a key may not come in."""

    status: int
    error_type: str
    message: str


def refusal_of_key(
    key: KeySnapshot, who: TenantWho, *, scope: str, address: str, at_us: int
) -> Refused | None:
    """401 once a key has expired, 403 for what it may not do here; None lets it in.

    An empty address is not checked: it was, when the request came in.
    """
    if key.expires_at_us is not None and at_us >= key.expires_at_us:
        return Refused(status=401, error_type=AUTHENTICATION, message="This API key has expired.")
    if key.kind == KIND_MANAGEMENT:
        return _forbidden("A management key cannot call models. Use an API key.")
    if who.status != STATUS_ACTIVE:
        return _forbidden("This account is suspended. Contact your provider.")
    if scope not in key.scopes:
        return _forbidden(f"This API key does not have the scope `{scope}`.")
    workspace = who.workspaces.get(str(key.workspace))
    if workspace is None or not workspace.is_active:
        return _forbidden("The workspace of this API key is archived.")
    if address and key.ip_ranges and not is_within(address, key.ip_ranges):
        return _forbidden("This API key may not be used from your address.")
    return None


def is_within(address: str, ranges: tuple[str, ...]) -> bool:
    """Whether an address lies in one of the ranges; what cannot be read lies in none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return any((mapped or ip) in ipaddress.ip_network(item, strict=False) for item in ranges)


def _forbidden(message: str) -> Refused:
    return Refused(status=403, error_type=PERMISSION, message=message)
