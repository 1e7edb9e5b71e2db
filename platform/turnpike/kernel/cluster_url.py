"""Reads the URL of a Redis Cluster: some of its nodes, and who we are on all of them.

``redis+cluster://user:password@host:port,host:port`` names a few nodes to begin with; the rest is
learnt from them. ``rediss+cluster`` is the same over TLS. Any other URL is a single server's.
"""

from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlsplit

SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
PORT = 6379

Node = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterUrl:
    """Where a cluster begins, and what every node of it asks for."""

    seeds: tuple[Node, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_tls: bool = False
    ca_file: str | None = None

    def node_url(self, node: Node) -> str:
        """The URL of one node as of a single server."""
        host, port = node
        name = f"[{host}]" if ":" in host else host
        who = ""
        if self.password is not None:
            who = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@"
        query = f"?ssl_ca_certs={quote(self.ca_file, safe='/')}" if self.ca_file else ""
        return f"{'rediss' if self.is_tls else 'redis'}://{who}{name}:{port}{query}"


def is_cluster_url(url: str) -> bool:
    """Whether a URL names a cluster rather than a single server."""
    return url.partition("://")[0] in SCHEMES


def parse_cluster_url(url: str) -> ClusterUrl:
    """Read a cluster's URL. Raises ValueError for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"Not a Redis Cluster URL: the scheme is {parts.scheme!r}.")
    if parts.path.strip("/") not in ("", "0"):
        raise ValueError("A Redis Cluster has no databases but 0.")
    who, _, places = parts.netloc.rpartition("@")
    username, _, password = who.partition(":")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    seeds = tuple(parse_node(place) for place in places.split(",") if place.strip())
    if not seeds:
        raise ValueError("A Redis Cluster URL names at least one node.")
    return ClusterUrl(
        seeds=seeds,
        username=unquote(username) or None,
        password=unquote(password) if password else None,
        is_tls=SCHEMES[parts.scheme] == "rediss",
        ca_file=query.get("ssl_ca_certs"),
    )


def parse_node(place: str) -> Node:
    """``host:port``, ``[v6]:port``, ``v6:port`` as servers write it, or a host alone."""
    host, colon, port = place.strip().rpartition(":")
    if not colon or place.strip().endswith("]"):
        host, port = place.strip(), str(PORT)
    if not port.isdecimal():
        raise ValueError(f"Not a node of a Redis Cluster: {place!r}.")
    return host.strip("[]"), int(port)
