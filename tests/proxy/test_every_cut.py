"""Every sample stream, cut at every byte: the same events and usage, and never more earlier."""

import pytest

from proxy.metering import StreamMeter
from proxy.sse import EventParser
from tests.proxy.test_metering import COUNTERS, SAMPLES, state_of

STREAMS = sorted(path.stem for path in SAMPLES.glob("*.sse") if path.stem != "openai_tool_use")


def read(*chunks: bytes) -> tuple[object, object]:
    """The events and the meter's state after these chunks."""
    parser, meter = EventParser(), StreamMeter()
    events = []
    for chunk in chunks:
        events += parser.feed(chunk)
        meter.feed(chunk)
    return events, state_of(meter)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_at_any_byte_is_the_same_stream(name: str) -> None:
    whole = (SAMPLES / f"{name}.sse").read_bytes()
    expected = read(whole)

    assert all(read(whole[:at], whole[at:]) == expected for at in range(1, len(whole)))


@pytest.mark.parametrize("name", STREAMS)
def test_what_came_before_the_cut_is_never_worth_more(name: str) -> None:
    whole = (SAMPLES / f"{name}.sse").read_bytes()
    full = StreamMeter()
    full.feed(whole)
    final = full.observed_usage()

    for at in range(0, len(whole), 3):
        part = StreamMeter()
        part.feed(whole[:at])
        seen = part.observed_usage()
        assert all((seen.get(count) or 0) <= (final.get(count) or 0) for count in COUNTERS)
        assert part.output_chars <= full.output_chars
