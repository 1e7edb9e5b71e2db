"""What is packed once says the same as what is packed each time."""

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limiter.scripts import SETTLE
from proxy.prepared_call import PreparedCall

NAMES = st.text(max_size=20)


@given(
    before=st.lists(NAMES, max_size=3),
    prefix=NAMES,
    name=NAMES,
    after=st.lists(NAMES, max_size=3),
    args=st.lists(st.binary(max_size=50), max_size=4),
)
def test_prepared_call_is_packed_as_the_client_library_packs_it(
    before: list[str], prefix: str, name: str, after: list[str], args: list[bytes]
) -> None:
    call = PreparedCall(SETTLE, before=before, prefix=prefix, after=after, args_count=len(args))

    keys = (*before, prefix + name, *after)
    command = ("EVALSHA", SETTLE.sha, len(keys), *keys, *args)
    assert call.keys(name) == keys
    assert call.packed(name, args) == hiredis.pack_command(command)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("size", [4_095, 4_096, 100_000])
def test_long_words_are_packed_as_short_ones_are(count: int, size: int) -> None:
    args = [b"short"] * (count - 1) + [b"x" * size]
    call = PreparedCall(SETTLE, before=("a",), prefix="p:", after=(), args_count=count)

    for name in ("name", "n" * size):
        command = ("EVALSHA", SETTLE.sha, 2, "a", "p:" + name, *args)
        assert call.packed(name, args) == hiredis.pack_command(command)  # type: ignore[arg-type]


@pytest.mark.parametrize("given_count", [0, 2, 3, 5])
def test_a_call_with_another_count_of_arguments_is_refused(given_count: int) -> None:
    call = PreparedCall(SETTLE, before=(), prefix="p:", after=(), args_count=4)

    with pytest.raises(ValueError, match=f"{given_count} arguments"):
        call.packed("name", [b"x"] * given_count)
