"""Embedded Valkey: persistence on, nothing evicted, reached on a socket of its own."""

from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from turnpike.embedded.engines import Engine, check_stamp, stamp_engine
from turnpike.embedded.places import Places

DATABASES = 16
PROBE_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedValkey:
    """One Valkey server with its data."""

    engine: Engine
    places: Places
    settings: tuple[str, ...] = ()

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.places.run / "valkey.sock"

    def prepare(self) -> None:
        """Make its folder. Raises EngineProblem when another engine wrote the data."""
        folder = self.places.data("valkey")
        check_stamp(folder, self.engine)
        stamp_engine(folder, self.engine)
        # A socket that a killed server left behind would be taken for a living one.
        self.socket.unlink(missing_ok=True)

    def command(self) -> list[str]:
        """The command of the server in the foreground."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.places.home / "valkey"),
            "databases": str(DATABASES),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        for text in self.settings:
            name, _, value = text.partition("=")
            options[name] = value
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [str(self.places.runnable(self.engine)), *arguments]

    def is_ready(self) -> bool:
        """Whether it answers; not so while it loads its data."""
        # One try: the client would wait seconds between its own, and the caller asks again anyway.
        with redis.Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=PROBE_SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def url(self, database: int = 0) -> str:
        """The connection URL of a database."""
        return f"unix://{self.socket}?db={database}"
