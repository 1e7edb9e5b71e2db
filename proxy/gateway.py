"""The parts of one worker, put together, and the rounds that run beside its requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from proxy.admission import Admitter
from proxy.auth import Authenticator
from proxy.batch_items import BatchItems
from proxy.config import ProxyConfig
from proxy.counting import Counter
from proxy.ending import Ending
from proxy.endpoints import Endpoints
from proxy.estimator import Estimator
from proxy.idempotency import Idempotency
from proxy.journal import Journal, JournalUnwritable
from proxy.keeper import ROUND_SECONDS, Keeper
from proxy.limiter.caps import UpstreamCaps
from proxy.limiter.fallback import LocalLimiter
from proxy.limiter.limiter import Limiter
from proxy.metrics import METRICS, SharedMetrics
from proxy.ownership import Owners
from proxy.pipeline import Pipeline
from proxy.recovery import Recovery
from proxy.redis_cluster import make_link
from proxy.redis_pipe import RedisAway
from proxy.refusals import RefusalLog
from proxy.settlement import Settlement
from proxy.snapshots import PlaneCold, SnapshotStore
from proxy.upstreams.client import UpstreamClient
from proxy.upstreams.forward import Forwarder
from proxy.upstreams.health import HealthBoard
from proxy.upstreams.health_sync import HealthSync
from proxy.upstreams.moves import Moves
from proxy.upstreams.switchboard import Switchboard
from turnpike.contracts.snapshots import UpstreamSnapshot
from turnpike.kernel import clock

logger = logging.getLogger(__name__)

REFUSALS_SECONDS = 0.25
EPOCH_SECONDS = 1.0
GATEWAY_SECONDS = 5.0
REAP_SECONDS = 5.0
ADOPT_SECONDS = 2.0
PROBE_SECONDS = 1.0
UPSTREAM_IDLE_SECONDS = 30.0
HEALTH_SECONDS = 1.0
CAPS_SECONDS = 10.0
RATIOS_SECONDS = 15.0


class Gateway:
    """Everything that one worker of the data plane consists of."""

    def __init__(self, config: ProxyConfig) -> None:
        self.config = config
        self._pipe = make_link(
            config.redis_url, timeout_seconds=config.redis_timeout_ms / 1_000 * 4
        )
        self._pipe.on_connect = self._note_connect
        self._store = SnapshotStore(self._pipe)
        fallback = LocalLimiter(
            cap_micro=config.fallback_cap_micro, live_workers=lambda: self.recovery.live_workers
        )
        self.limiter = Limiter(
            self._pipe, fallback=fallback, timeout_seconds=config.redis_timeout_ms / 1_000
        )
        self._journal = Journal(config.journal_dir / config.worker, fsync=config.journal_fsync)
        self.settlement = Settlement(
            limiter=self.limiter,
            pipe=self._pipe,
            journal=self._journal,
            resend_seconds=config.resend_ms / 1_000,
        )
        authenticator = Authenticator(self._store, peppers=config.peppers)
        self.keeper = Keeper(
            limiter=self.limiter,
            authenticator=authenticator,
            beat_seconds=config.beat_ms / 1_000,
            drain_seconds=config.drain_seconds,
        )
        self._refusals = RefusalLog(self._pipe)
        self._client = UpstreamClient(
            connections_max=config.upstream_connections_max, idle_seconds=UPSTREAM_IDLE_SECONDS
        )
        forwarder = self._build_forwarder()
        self.switchboard = self._build_switchboard(forwarder)
        owners, self._estimator = Owners(self._pipe), Estimator(self._pipe)
        admitter = Admitter(
            config=config,
            owners=owners,
            estimator=self._estimator,
            authenticator=authenticator,
            store=self._store,
            limiter=self.limiter,
            refusals=self._refusals,
        )
        self.recovery = Recovery(
            config=config,
            pipe=self._pipe,
            store=self._store,
            settlement=self.settlement,
            keeper=self.keeper,
            estimator=self._estimator,
        )
        pipeline = Pipeline(
            admitter=admitter,
            forwarder=forwarder,
            journal=self._journal,
            settlement=self.settlement,
            ending=Ending(
                limiter=self.limiter, settlement=self.settlement, estimator=self._estimator
            ),
            keeper=self.keeper,
            switchboard=self.switchboard,
            owners=owners,
            estimator=self._estimator,
        )
        self.endpoints = self._build_endpoints(admitter, pipeline, forwarder)
        self.shared_metrics = SharedMetrics(METRICS, config.metrics_dir)
        self._tasks: list[asyncio.Task[None]] = []
        self._has_come_back = asyncio.Event()
        self._reap_from = 0.0
        self._is_draining = False

    @property
    def is_ready(self) -> bool:
        """Whether a request could be admitted now."""
        return (
            self._pipe.is_connected
            and self._store.plane is not None
            and self._journal.is_writable
            and not self._is_draining
        )

    async def start(self) -> None:
        """Open the journal, connect, and start the rounds. Redis may be away: that passes."""
        with suppress(JournalUnwritable):
            self._journal.open()
        await self._pipe.start()
        rounds: list[tuple[float, Callable[[], Awaitable[object]]]] = [
            (GATEWAY_SECONDS, self.recovery.beat_gateway),
            (EPOCH_SECONDS, self._watch),
            (ADOPT_SECONDS, self.recovery.adopt_journals),
            (REAP_SECONDS, self._reap),
            (self.config.confirm_ms / 1_000, self.settlement.confirm),
            (REFUSALS_SECONDS, self._refusals.flush),
            (PROBE_SECONDS, self._probe),
            (HEALTH_SECONDS, self._health.sync),
            (HEALTH_SECONDS, self._health.check_due),
            (CAPS_SECONDS, self._caps.renew),
            (RATIOS_SECONDS, self._estimator.sync),
            (0.0, self._bring_back),
            (ROUND_SECONDS, self.keeper.beat_due),
        ]
        self._tasks = [
            asyncio.create_task(self._journal.sync_forever(), name="sync"),
            *[asyncio.create_task(_repeat(act, seconds)) for seconds, act in rounds],
        ]

    def begin_drain(self) -> None:
        """The server takes no more connections; what runs may end within the drain time."""
        self._is_draining = True
        self.keeper.begin_drain()

    async def stop(self) -> None:
        """Stop the rounds and close everything. What is unconfirmed stays in the journal."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.settlement.finish()
        with suppress(RedisAway):
            await self._refusals.flush()
            await self.settlement.confirm(is_last=True)
            await self._estimator.sync()
            await self.recovery.leave()
        self.recovery.release()
        self._journal.close()
        await self._client.close()
        await self._pipe.stop()

    def _build_endpoints(
        self, admitter: Admitter, pipeline: Pipeline, forwarder: Forwarder
    ) -> Endpoints:
        return Endpoints(
            config=self.config,
            admitter=admitter,
            pipeline=pipeline,
            idempotency=Idempotency(self._pipe),
            counter=Counter(
                admitter=admitter,
                forwarder=forwarder,
                switchboard=self.switchboard,
                estimator=self._estimator,
            ),
            batch_items=self._build_batch_items(forwarder),
        )

    def _build_forwarder(self) -> Forwarder:
        return Forwarder(
            self._client,
            master_keys=self.config.master_keys,
            simulator_control=self.config.simulator_control,
        )

    def _build_switchboard(self, forwarder: Forwarder) -> Switchboard:
        board, moves = HealthBoard(), Moves()
        timeout_seconds = self.config.redis_timeout_ms / 1_000
        self._caps = UpstreamCaps(
            self._pipe, worker=self.config.worker, timeout_seconds=timeout_seconds
        )
        self._health = HealthSync(
            self._pipe,
            board=board,
            moves=moves,
            upstreams=self._known_upstreams,
            check=forwarder.check,
            worker=self.config.worker,
        )
        return Switchboard(board=board, moves=moves, caps=self._caps)

    def _build_batch_items(self, forwarder: Forwarder) -> BatchItems:
        return BatchItems(
            config=self.config,
            store=self._store,
            forwarder=forwarder,
            switchboard=self.switchboard,
        )

    def _known_upstreams(self) -> Mapping[str, UpstreamSnapshot]:
        plane = self._store.plane
        return {} if plane is None else plane.snapshot.upstreams

    async def _probe(self) -> None:
        self._journal.probe()
        METRICS.requests_open.set(self.keeper.open_count)
        METRICS.events_unconfirmed.set(self.settlement.unconfirmed)
        METRICS.upstream_connections.set(self._client.open_connections)
        METRICS.journal_bytes.set(self._journal.bytes_written)
        self.shared_metrics.flush()
        if self._store.plane is None and self._pipe.is_connected:
            await self._store.read_plane()

    async def _watch(self) -> None:
        if await self.recovery.watch_epochs():
            self._has_come_back.set()

    async def _reap(self) -> None:
        if clock.monotonic_seconds() >= self._reap_from:
            await self.recovery.reap()

    def _note_connect(self, _run_id: str) -> None:
        """A connection came back: whatever the server may have lost is brought back at once.

        Leases may have ended while Redis was away, and journals may lie here since then: who lives
        gets the time to say so before anybody is given up.
        """
        METRICS.redis_connects.inc()
        self._reap_from = clock.monotonic_seconds() + self.config.reap_grace_ms / 1_000
        self._has_come_back.set()

    async def _bring_back(self) -> None:
        """Once for each time that Redis came back, also when it does so in the middle of it."""
        await self._has_come_back.wait()
        self._has_come_back.clear()
        await self.recovery.bring_back()


async def _repeat(act: Callable[[], Awaitable[object]], seconds: float) -> None:
    while True:
        try:
            await act()
        except (RedisAway, PlaneCold):
            # The next round tries again; requests are answered by the fallback's rules meanwhile.
            pass
        except Exception:
            METRICS.round_errors.inc()
            logger.exception("round.failed")
        await asyncio.sleep(seconds)
