"""The key in either header to a KeySnapshot.

`x-api-key` and `Authorization: Bearer` carry the same keys: SDKs changed from the first to the
second. Two different credentials in one request are refused, since nobody can say which one counts.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256

from proxy.api_errors import ApiError
from proxy.config import Network
from proxy.known_head import HeadMemo
from proxy.redis_pipe import RedisAway
from proxy.snapshots import KeyUnknown, SnapshotStore, View
from turnpike.contracts.standing import refusal_of_key
from turnpike.kernel import clock, hashing

ADDRESSES_MAX = 10_000
DIGESTS_MAX = 50_000
FAILURES_MAX = 30
FAILURE_WINDOW_SECONDS = 10.0

NO_KEY = "x-api-key header is required"
BAD_KEY = "invalid x-api-key"


class Authenticator:
    """Turns a request's headers into the view of its key."""

    def __init__(
        self,
        store: SnapshotStore,
        *,
        peppers: Mapping[str, bytes],
        monotonic: Callable[[], float] = clock.monotonic_seconds,
    ) -> None:
        self._store = store
        self._peppers = dict(peppers)
        self._monotonic = monotonic
        self._digests: dict[bytes, list[str]] = {}
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def known(self, headers: Mapping[bytes, bytes], memo: HeadMemo | None = None) -> View | None:
        """The view of the request's key where it is cached. Raises ApiError 401 without a key."""
        digests = None if memo is None else memo.digests
        if digests is None:
            digests = self._digests_of(credential_of(headers))
            if memo is not None:
                memo.digests = digests
        for digest in digests:
            view = self._store.cached(digest)
            if view is not None:
                return view
        return None

    async def authenticate(self, headers: Mapping[bytes, bytes], *, address: str) -> View:
        """The view of the request's key.

        Raises ApiError 401 for a missing or unknown key, PlaneCold, or RedisAway when neither Redis
        nor the cache can tell.
        """
        known = self.known(headers)
        if known is not None:
            return known
        key = credential_of(headers)
        if not hashing.is_well_formed(key):
            raise ApiError(401, "authentication_error", BAD_KEY)
        self._refuse_flood(address)
        for digest in self._digests_of(key):
            view = await self._read(digest)
            if view is not None:
                return view
        self._count_failure(address)
        raise ApiError(401, "authentication_error", BAD_KEY)

    async def read_again(self, view: View) -> View:
        """The key's view after its policy changed. Raises ApiError 401 when it is gone."""
        fresh = await self._read(view.digest)
        if fresh is None:
            raise ApiError(401, "authentication_error", BAD_KEY)
        return fresh

    async def _read(self, digest: str) -> View | None:
        try:
            return await self._store.read(digest)
        except KeyUnknown:
            return None
        except RedisAway:
            stale = self._store.stale(digest)
            if stale is None:
                raise
            return stale

    def _digests_of(self, key: str) -> list[str]:
        """The key's digests, remembered under a plain hash of the whole key, which is cheaper."""
        name = sha256(key.encode()).digest()
        digests = self._digests.get(name)
        if digests is None:
            if len(self._digests) >= DIGESTS_MAX:
                self._digests.clear()
            digests = hashing.digest_candidates(key, peppers=self._peppers)
            self._digests[name] = digests
        return digests

    def _refuse_flood(self, address: str) -> None:
        """Answer an address that only guesses without asking Redis each time."""
        count, since = self._failures.get(address, (0, 0.0))
        if count >= FAILURES_MAX and self._monotonic() - since < FAILURE_WINDOW_SECONDS:
            raise ApiError(401, "authentication_error", BAD_KEY)

    def _count_failure(self, address: str) -> None:
        now = self._monotonic()
        count, since = self._failures.pop(address, (0, now))
        if now - since >= FAILURE_WINDOW_SECONDS:
            count, since = 0, now
        self._failures[address] = (count + 1, since)
        while len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)


def credential_of(headers: Mapping[bytes, bytes]) -> str:
    """The key as sent. Raises ApiError 401 when there is none, or when two differ."""
    plain = headers.get(b"x-api-key", b"").strip()
    if plain and b"authorization" not in headers:
        return plain.decode("latin-1")
    scheme, _, bearer = headers.get(b"authorization", b"").strip().partition(b" ")
    bearer = bearer.strip() if scheme.lower() == b"bearer" else b""
    if plain and bearer and plain != bearer:
        raise ApiError(
            401, "authentication_error", "x-api-key and Authorization carry different keys"
        )
    credential = plain or bearer
    if not credential:
        raise ApiError(401, "authentication_error", NO_KEY)
    return credential.decode("latin-1")


def check_standing(view: View, *, scope: str, address: str) -> None:
    """Refuse what a known key may not do here: 401 once it has expired, else 403.

    An empty address is not checked: it was, when the request came in.
    """
    refused = refusal_of_key(view.key, view.who, scope=scope, address=address, at_us=clock.now_us())
    if refused is not None:
        raise ApiError(refused.status, refused.error_type, refused.message)


def client_address(peer: str, forwarded: bytes, trusted: tuple[Network, ...]) -> str:
    """The peer's address, or what the nearest trusted proxies say that theirs was."""
    if not trusted or not _is_trusted(peer, trusted):
        return peer
    for hop in reversed(forwarded.decode("latin-1").split(",")):
        address = hop.strip()
        if address and not _is_trusted(address, trusted):
            return address
    return peer


def _is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in trusted)
