"""Which plane answers which path. One table for the joined app and for reverse proxies."""

PROXY = "proxy"
CONTROL = "control"

# Below /v1, these need PostgreSQL; Django answers them with errors in Anthropic's shape.
CONTROL_V1_PREFIXES = ("/v1/organizations", "/v1/messages/batches")


def plane_of(path: str, method: str = "GET") -> str:
    """`proxy` or `control` for a request's raw path."""
    if path.startswith("/v1/"):
        return CONTROL if _is_below(path, CONTROL_V1_PREFIXES) else PROXY
    if path == "/api/hello" or (path == "/" and method == "HEAD"):
        return PROXY
    return CONTROL


def _is_below(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)
