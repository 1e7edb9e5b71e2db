"""What is packed once says the same as what is packed each time."""

import hiredis
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
