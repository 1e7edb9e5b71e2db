"""The parser of event streams: the standard's grammar, and the same events however they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import DONE, PING, Event, EventParser, StreamTooLarge, write_data, write_event

LETTERS = [b"data", b"event", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"x", b"\xe2\x82\xac"]
streams = st.lists(st.sampled_from(LETTERS), max_size=60).map(b"".join)


def parse(*chunks: bytes, event_bytes_max: int = 1000) -> list[Event]:
    parser = EventParser(event_bytes_max=event_bytes_max)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def read_by_the_standard(stream: bytes) -> list[Event]:
    """A second reader, written line by line after the standard's words."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[Event] = []
    lines: list[bytes] = []
    name = b""
    *whole_lines, _ = text.split(b"\n")
    for line in whole_lines:
        if not line:
            if lines:
                events.append(Event(name, b"\n".join(lines)))
            name, lines = b"", []
        elif line.startswith(b":"):
            continue
        else:
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"data":
                lines.append(value)
            elif field == b"event":
                name = value
    return events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"event: a\ndata: 1\n\n", [Event(b"a", b"1")]),
        (b"event: a\r\ndata: 1\r\n\r\n", [Event(b"a", b"1")]),
        (b"event: a\rdata: 1\r\r", [Event(b"a", b"1")]),
        (b"\xef\xbb\xbfevent: a\ndata: 1\n\n", [Event(b"a", b"1")]),
        (b"data: 1\ndata: 2\n\n", [Event(b"", b"1\n2")]),
        (b"data:  1\n\n", [Event(b"", b" 1")]),
        (b"data\n\n", [Event(b"", b"")]),
        (b": comment\n\nevent: a\n\n", []),
        (b": comment\nevent: a\nid: 7\nretry: 9\ndata: 1\n\n", [Event(b"a", b"1")]),
        (b"data: 1\nevent: a\n\n", [Event(b"a", b"1")]),
        (b"\n\n\ndata: 1\n\n\n\ndata: 2\n\n", [Event(b"", b"1"), Event(b"", b"2")]),
        (b"data: never finished\n", []),
    ],
)
def test_a_stream_is_read_by_the_standard(stream: bytes, events: list[Event]) -> None:
    assert parse(stream) == events
    assert read_by_the_standard(stream) == events
    assert parse(*[stream[at : at + 1] for at in range(len(stream))]) == events


@given(stream=streams, places=st.lists(st.integers(min_value=0, max_value=400), max_size=12))
def test_any_cutting_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    expected = read_by_the_standard(stream)

    assert parse(*cut(stream, places)) == expected


@given(
    size=st.integers(min_value=0, max_value=30),
    places=st.lists(st.integers(min_value=0, max_value=60), max_size=6),
)
def test_the_bound_of_an_event_holds_however_it_is_cut(size: int, places: list[int]) -> None:
    stream = b"data: " + b"x" * size + b"\n\n"

    if len(stream) - 2 > 20:
        with pytest.raises(StreamTooLarge, match="passes 20 bytes"):
            parse(*cut(stream, places), event_bytes_max=20)
    else:
        assert parse(*cut(stream, places), event_bytes_max=20) == [Event(b"", b"x" * size)]


def test_an_event_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    parser = EventParser()
    piece = b"x" * (1024 * 1024)
    for _ in range(16):
        parser.feed(piece)

    with pytest.raises(StreamTooLarge):
        parser.feed(piece)


@given(name=st.sampled_from([b"ping", b"error"]), lines=st.lists(st.binary(max_size=9), min_size=1))
def test_what_is_written_is_read_again(name: bytes, lines: list[bytes]) -> None:
    clean = [line.replace(b"\n", b"").replace(b"\r", b"") for line in lines]

    assert parse(write_event(name, b"\n".join(clean))) == [Event(name, b"\n".join(clean))]


def test_a_line_break_in_data_cannot_make_an_event_of_its_own() -> None:
    assert parse(write_event(b"a", b"1\r\n\r\nevent: b\rdata: 2")) == [
        Event(b"a", b"1\n\nevent: b\ndata: 2")
    ]


def test_the_fixed_events_read_as_what_they_are() -> None:
    assert parse(PING + DONE + write_data(b"{}")) == [
        Event(b"ping", b'{"type":"ping"}'),
        Event(b"", b"[DONE]"),
        Event(b"", b"{}"),
    ]
