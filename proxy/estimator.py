"""Learns how many tokens a model makes of a text, by script, from what upstreams report.

Estimates begin at the shipped ratios and follow the real ones in small, bounded steps within fixed
ends, so that no tenant can bend them far for others. They decide what the token buckets reserve and
what `count_tokens` says where the upstream cannot count. Money is held by the higher of the shipped
and the learned estimate with its usual error on top: learning never lowers a hold.

What is learned lies in Redis and outlives the worker; workers add their steps to each other's.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from proxy.metrics import METRICS
from proxy.redis_link import RedisLink
from turnpike.contracts import rating
from turnpike.contracts.demand import Demand
from turnpike.contracts.measure import DEFAULT_RATIOS, REQUEST_TOKENS, SCRIPTS, Measure
from turnpike.kernel import clock, keyspace

OUTPUT = "output"
OUTPUT_RATIO = 0.25  # tokens for each character of an answer
DEFAULTS: Mapping[str, float] = {**DEFAULT_RATIOS, OUTPUT: OUTPUT_RATIO}

# One answer moves a ratio by so much of the difference, and never by more than the step.
RATE = 1 / 16
STEP_MAX = 0.02
# A ratio stays between these parts of the shipped one.
LOWEST, HIGHEST = 1 / 8, 4.0
# A hold takes so many times the usual error on top, at most as much again.
HELD_DEVIATIONS, HELD_MARGIN_MAX = 3.0, 1.0

# Shorter texts say more of their wrapping than of the tokenizer; mixed ones, nothing of either.
TOKENS_MIN = 200
OUTPUT_CHARACTERS_MIN = 200
SHARE_MIN = 0.6
TENANT_SECONDS = 1.0
MODEL_SECONDS = 0.05
MODELS_MAX = 1_000
TENANTS_MAX = 10_000


class Learned(msgspec.Struct):
    """A ratio, its usual relative error, and how many answers it was learned from."""

    ratio: float
    deviation: float = 0.0
    count: int = 0


class _Fit(msgspec.Struct, frozen=True):
    """What is learned of a model, as requests ask for it."""

    ratios: Mapping[str, float]
    held_factor: float  # so many times the likely input is held


class Estimator:
    """One worker's ratios."""

    def __init__(
        self, pipe: RedisLink, *, monotonic: Callable[[], float] = clock.monotonic_seconds
    ) -> None:
        self._pipe = pipe
        self._monotonic = monotonic
        self._learned: dict[str, dict[str, Learned]] = {}
        self._synced: dict[str, dict[str, Learned]] = {}
        self._changed: set[str] = set()
        # What each request asks, made of what is learned and kept until that changes.
        self._fits: dict[str, _Fit] = {}
        self._next_of_model: dict[str, float] = {}
        self._next_of_tenant: dict[tuple[int, str], float] = {}

    def input_tokens(self, model: str, size: Measure) -> int:
        """The likely input tokens of a body for a model, rounded up."""
        fit = self._fit_of(model)
        return size.plain_tokens() if fit is None else size.tokens(fit.ratios)

    def fitted(self, demand: Demand, model: str) -> Demand:
        """A demand as it was read with what is known of the model; the same where nothing is."""
        fit = self._fits.get(model) or self._fit_of(model)
        if fit is None:
            return demand
        likely = demand.measure.tokens(fit.ratios)
        held, shipped = math.ceil(likely * fit.held_factor), demand.input_estimate
        return msgspec.structs.replace(
            demand, input_estimate=likely, held_input=held if held > shipped else shipped
        )

    def output_ratio(self, model: str) -> float:
        """Tokens for each character of an answer, for those that are cut off."""
        found = self._learned.get(model, {}).get(OUTPUT)
        return OUTPUT_RATIO if found is None else found.ratio

    def is_curious(self, tenant: int, model: str) -> bool:
        """Whether it is time to look at an answer of the model for the tenant: mostly not."""
        now = self._monotonic()
        # Where there are few tenants, it is the tenant that has to wait.
        if now < self._next_of_tenant.get((tenant, model), 0.0):
            return False
        return now >= self._next_of_model.get(model, 0.0)

    def learn(
        self,
        *,
        tenant: int,
        model: str,
        size: Measure,
        estimate: int,
        usage: Mapping[str, Any],
        output_chars: int,
    ) -> None:
        """An upstream reported what an answer used. Nothing where nobody `is_curious`."""
        if not self.is_curious(tenant, model):
            return
        now = self._monotonic()
        if len(self._next_of_tenant) >= TENANTS_MAX:
            self._next_of_tenant.clear()
        if model not in self._learned and len(self._learned) >= MODELS_MAX:
            return
        self._next_of_model[model] = now + MODEL_SECONDS
        self._next_of_tenant[tenant, model] = now + TENANT_SECONDS
        counts = rating.token_counts(usage)
        prompt = sum(counts[name] for name in rating.TOKEN_COMPONENTS if name != rating.OUTPUT)
        if prompt:
            METRICS.input_estimate_ratio.labels(model).observe(estimate / prompt)
        self._learn_input(model, size, prompt)
        self._learn_output(model, usage, counts[rating.OUTPUT], output_chars)

    def _fit_of(self, model: str) -> "_Fit | None":
        learned = self._learned.get(model)
        if learned is None:
            return None
        fit = self._fits.get(model)
        if fit is None:
            worst = max(
                (learned[name].deviation for name in SCRIPTS if name in learned), default=0.0
            )
            margin = min(HELD_MARGIN_MAX, HELD_DEVIATIONS * worst)
            fit = self._fits[model] = _Fit(_ratios_of(learned), 1 + margin)
        return fit

    async def sync(self) -> None:
        """Add this worker's steps to what Redis has, and take over what others learned."""
        reply = await self._pipe.execute("HGETALL", keyspace.RATIOS)
        known = {name: found for name, text in _pairs(reply) if (found := _read(text))}
        texts: dict[str, str] = {}
        for model in self._changed:
            known[model] = self._merged(model, known.get(model, {}))
            texts[model] = json.dumps(
                {name: [x.ratio, x.deviation, x.count] for name, x in known[model].items()}
            )
        if texts:
            fields = [item for pair in texts.items() for item in pair]
            await self._pipe.execute("HSET", keyspace.RATIOS, *fields)
        self._changed -= set(texts)
        names = list(known)[:MODELS_MAX]
        self._synced = {name: _copy(known[name]) for name in names}
        self._learned |= {name: _copy(known[name]) for name in names}
        self._fits.clear()
        for model in names:
            for script, item in known[model].items():
                METRICS.token_ratio.labels(model, script).set(item.ratio)

    def _merged(self, model: str, known: Mapping[str, Learned]) -> dict[str, Learned]:
        merged = dict(known)
        for name, mine in self._learned[model].items():
            base = self._synced.get(model, {}).get(name) or Learned(DEFAULTS[name])
            theirs = known.get(name) or Learned(DEFAULTS[name])
            merged[name] = Learned(
                ratio=_clamped(name, theirs.ratio + mine.ratio - base.ratio),
                deviation=mine.deviation,
                count=theirs.count + mine.count - base.count,
            )
        return merged

    def _learn_input(self, model: str, size: Measure, prompt: int) -> None:
        ratios = _ratios_of(self._learned.get(model, {}))
        parts = {name: getattr(size, name) * ratios[name] for name in SCRIPTS}
        text = sum(parts.values())
        name = max(parts, key=lambda script: parts[script])
        is_plain = size.media_tokens <= (1 - SHARE_MIN) * text and parts[name] >= SHARE_MIN * text
        if text < TOKENS_MIN or not is_plain:
            return
        rest = REQUEST_TOKENS + size.media_tokens + text - parts[name]
        self._step(model, name, (prompt - rest) / getattr(size, name))

    def _learn_output(
        self, model: str, usage: Mapping[str, Any], tokens: int, characters: int
    ) -> None:
        if characters < OUTPUT_CHARACTERS_MIN or rating.thinking_tokens(usage):
            return
        ratio = self.output_ratio(model)
        # Counts are rounded up: what the rounding explains is no news.
        if tokens - 1 < ratio * characters <= tokens:
            return
        self._step(model, OUTPUT, tokens / characters)

    def _step(self, model: str, name: str, sample: float) -> None:
        found = self._learned.setdefault(model, {}).setdefault(name, Learned(DEFAULTS[name]))
        # What is further off than the ends is as far off as they are.
        sample = _clamped(name, sample)
        error = sample / found.ratio - 1
        step = max(-STEP_MAX, min(STEP_MAX, RATE * error))
        found.ratio = _clamped(name, found.ratio * (1 + step))
        found.deviation += RATE * (min(abs(error), HELD_MARGIN_MAX) - found.deviation)
        found.count += 1
        self._changed.add(model)
        self._fits.pop(model, None)


def _ratios_of(learned: Mapping[str, Learned]) -> dict[str, float]:
    return {
        name: learned[name].ratio if name in learned else default
        for name, default in DEFAULT_RATIOS.items()
    }


def _clamped(name: str, ratio: float) -> float:
    default = DEFAULTS[name]
    return max(LOWEST * default, min(HIGHEST * default, ratio))


def _copy(found: Mapping[str, Learned]) -> dict[str, Learned]:
    return {name: msgspec.structs.replace(item) for name, item in found.items()}


def _pairs(reply: Any) -> list[tuple[str, bytes]]:
    if isinstance(reply, dict):
        return [(name.decode(), text) for name, text in reply.items()]
    return [(n.decode(), text) for n, text in zip(reply[::2], reply[1::2], strict=True)]


def _read(text: bytes) -> dict[str, Learned]:
    """What stands in Redis, within the ends; what cannot be read is as if it were not there."""
    try:
        rows = msgspec.json.decode(text, type=dict[str, tuple[float, float, int]])
    except msgspec.MsgspecError:
        return {}
    return {
        name: Learned(_clamped(name, ratio), max(0.0, min(HELD_MARGIN_MAX, deviation)), count)
        for name, (ratio, deviation, count) in rows.items()
        if name in DEFAULTS
    }
