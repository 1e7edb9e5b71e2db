"""The state of one request between its admission and its end."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from proxy.api_errors import ApiError
from proxy.events import Outcome, OwnAttempt
from proxy.journal import line_of
from proxy.limiter.limiter import Admission
from proxy.limiter.limits import Spec, running_charges, settle_charges
from proxy.metering import StreamMeter
from proxy.pricing import call_micro, lines_micro, worst_case_micro
from proxy.routing import Route
from proxy.snapshots import View
from proxy.streaming import Pulse
from proxy.upstreams.tries import Tries
from turnpike.contracts import rating
from turnpike.contracts import usage as words
from turnpike.contracts.features import NOTHING, Wants
from turnpike.contracts.measure import Measure
from turnpike.contracts.snapshots import ON_DISCONNECT_DRAIN, UpstreamSnapshot
from turnpike.kernel import clock

_encode = msgspec.json.Encoder().encode
NO_USAGE: Mapping[str, Any] = {}


class Exchange(msgspec.Struct, kw_only=True):
    """One admitted request. Only its pipeline and the keeper's beats change it."""

    rid: str
    request_id: str
    view: View
    route: Route
    model: str  # that answers, by our name for it
    spec: Spec
    members: bytes  # of its event, as far as they are known at admission
    started_at_us: int
    admission: Admission
    max_tokens: int
    hold_micro: int
    begun_at: float
    wants: Wants = NOTHING
    measure: Measure = Measure()
    unseen_micro: int = 0  # held for calls of which the beginning of an answer says nothing
    tries: Tries | None = None
    pulse: Pulse | None = None
    meter: StreamMeter | None = None
    outcome: Outcome = msgspec.field(default_factory=Outcome)
    attempts: list[OwnAttempt] = []
    counts: Mapping[str, int] | None = None  # what is billed, where the meter knows it already
    beaten_at: float = 0.0
    admitted_at: int | None = None  # where the journal has its spec; None: not as it is by now
    is_trued_up: bool = False
    is_ended_elsewhere: bool = False
    is_given_back: bool = False  # platform or upstream caused the void: its request is not counted
    is_client_gone: bool = False
    ignored: tuple[str, ...] = ()  # what of the client's body the upstream was not sent
    client_gone_at: float = 0.0
    is_drained: bool = False  # once the client is gone, read on: the upstream bills it anyway
    is_overdue: bool = False
    stopped_by: ApiError | None = None
    close_upstream: Callable[[], object] | None = None
    _usage_version: int = -1
    _usage_json: bytes = b"{}"
    _lines: list[rating.UsageLine] | None = None

    @property
    def usage(self) -> Mapping[str, Any]:
        """What is known of the usage now."""
        if self.outcome.usage:
            return self.outcome.usage
        return (
            self.meter.observed_usage()
            if self.meter is not None and self.meter.has_started
            else NO_USAGE
        )

    @property
    def is_stopped(self) -> bool:
        """Whether somebody ended it before its time: the client, or we."""
        return self.stopped_by is not None or (self.is_client_gone and not self.is_drained)

    def begin_attempt(self, upstream: int, credential: int | None) -> int:
        """Count one more try; its number."""
        number = len(self.attempts) + 1
        self.attempts.append(OwnAttempt(n=number, upstream=upstream, credential=credential))
        return number

    def end_attempt(
        self,
        outcome: str,
        upstream_request_id: str | None = None,
        usage: Mapping[str, Any] | msgspec.Raw | None = None,
    ) -> None:
        """Say what became of the try that runs."""
        last = self.attempts[-1]
        last.upstream_request_id = upstream_request_id or last.upstream_request_id
        last.outcome, last.usage = outcome, usage

    def stop(self, reason: ApiError | None) -> None:
        """End the stream early: the reason goes to the client, None means that it has left."""
        if reason is None:
            if not self.is_client_gone:
                self.is_client_gone, self.client_gone_at = True, clock.monotonic_seconds()
            if self.is_drained:
                return
        elif self.stopped_by is None:
            self.stopped_by = reason
        if self.close_upstream is not None:
            self.close_upstream()

    def set_hold(self, hold_micro: int) -> None:
        """This much is held now."""
        self.hold_micro, before = hold_micro, self.spec
        self.spec = before.with_hold(hold_micro)
        if self.spec is not before:
            self.admitted_at = None

    def overrun(self) -> None:
        """The upstream has had all the time that an answer of this length may take."""
        self.is_overdue = True
        if self.close_upstream is not None:
            self.close_upstream()

    def set_disconnect_policy(self, upstream: UpstreamSnapshot) -> None:
        """What happens when the client leaves: the tenant's word, else the upstream's."""
        policy = self.view.terms.on_disconnect or upstream.on_disconnect
        self.is_drained = policy == ON_DISCONNECT_DRAIN

    def end_drain(self, now: float) -> None:
        """The client left so long ago that nothing more is read for it."""
        seconds = self.view.terms.drain_seconds
        if seconds is not None and self.is_drained and now - self.client_gone_at >= seconds:
            self.is_drained = False
            self.stop(None)

    def attempt_line(self) -> bytes:
        """The journal's line of the attempt that is about to be sent: the first tells it all."""
        last, spec = self.attempts[-1], self.spec
        if last.n > 1:
            return line_of("S", self.rid, b'"n":%d,"upstream":%d' % (last.n, last.upstream))
        sent = b',"n":1,"upstream":%d' % last.upstream
        return line_of("A", self.rid, b'"base":', spec.base, b',"spec":', spec.text, sent)

    def progress_line(self) -> bytes:
        """The journal's line of what is known so far."""
        assert self.meter is not None
        return line_of(
            "P",
            self.rid,
            b'%b,"hold":%d' % (self._known(self.meter), self.hold_micro),
        )

    def progress(self) -> bytes | None:
        """What a beat leaves in Redis for the reaper."""
        if self.meter is None or not self.meter.has_started:
            return None
        return b"{%b}" % self._known(self.meter)

    def running_charges(self) -> dict[str, int]:
        """What the buckets bear while the answer comes in."""
        usage = self.usage
        if not usage:
            return {}
        counts = rating.token_counts(usage)
        return running_charges(
            self.spec, input_tokens=limited_input(counts), output_tokens=counts[rating.OUTPUT]
        )

    def final_charges(self) -> dict[str, int]:
        """What the buckets bear at the end."""
        if self.outcome.rank == words.RANK_VOID:
            return settle_charges(
                self.spec,
                input_tokens=0,
                output_tokens=0,
                is_void=True,
                is_request_given_back=self.is_given_back,
            )
        counts = self.counts
        if counts is None:
            counts = rating.sum_counts(self._final_lines())
        return settle_charges(
            self.spec, input_tokens=limited_input(counts), output_tokens=counts[rating.OUTPUT]
        )

    def worst_case_micro(self) -> int:
        """The most that the stream can still cost, now that its input is known."""
        return self.unseen_micro + worst_case_micro(
            self.usage,
            price_set=self.route.price_set,
            model=self.model,
            max_tokens=self.max_tokens,
            discount_bp=self.view.terms.discount_bp,
        )

    def name_models(self, usage: Mapping[str, Any]) -> Mapping[str, Any]:
        """Usage whose iterations name models as the catalogue does, so that each has its price."""
        entries = usage.get("iterations")
        if not isinstance(entries, list):
            return usage
        named = [self._with_own_name(entry) for entry in entries if isinstance(entry, dict)]
        return {**usage, "iterations": named}

    def _with_own_name(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        name = entry.get("model")
        if not isinstance(name, str) or not name:
            return entry
        if any(name == hop.upstream_model for hop in self.route.hops):
            return {**entry, "model": self.model}
        model = self.view.plane.find_model(name)
        return entry if model is None else {**entry, "model": model.model}

    def worth_micro(self) -> int:
        """What the answer is worth, before it is capped by the hold."""
        if self.counts is not None and self.outcome.stop_reason != rating.REFUSAL:
            # Most answers are one plain call; its line would say the same, and has to be made.
            return call_micro(
                self.counts, self.route.price_set, self.model, self.view.terms.discount_bp
            )
        return lines_micro(
            self._final_lines(),
            price_set=self.route.price_set,
            discount_bp=self.view.terms.discount_bp,
            stop_reason=self.outcome.stop_reason,
        )

    def _final_lines(self) -> list[rating.UsageLine]:
        """The lines of the final usage, which is asked for its worth and for its charges."""
        lines = self._lines
        if lines is None and self.counts is not None:
            lines = [
                rating.UsageLine(model=self.model, variant=rating.STANDARD, counts=self.counts)
            ]
        elif lines is None:
            lines = rating.usage_lines(self.outcome.usage, model=self.model)
        self._lines = lines
        return lines

    def _known(self, meter: StreamMeter) -> bytes:
        if meter.usage_version != self._usage_version:
            self._usage_json = _encode(self.name_models(meter.usage))
            self._usage_version = meter.usage_version
        return b'"usage":%b,"output_chars":%d,"is_final":%b' % (
            self._usage_json,
            meter.output_chars,
            b"true" if meter.is_reported else b"false",
        )


def limited_input(counts: Mapping[str, int]) -> int:
    """Input tokens that count against limits: cache reads do not."""
    return counts[rating.INPUT] + counts[rating.CACHE_WRITE_5M] + counts[rating.CACHE_WRITE_1H]
