"""Values that hold what a client sent do not show it, should one ever come into a log."""

from pathlib import Path
from typing import Any, cast

import pytest

from proxy.admission import Ask
from proxy.config import ProxyConfig
from proxy.http_cycle import Cycle
from proxy.upstreams.connection import Exchange
from proxy.upstreams.forward import Call

SECRET = b"sk-not-to-be-seen"
HEADERS = {b"x-api-key": SECRET}
NOTHING: Any = None


def make_cycle() -> Cycle:
    cycle = Cycle({"headers": list(HEADERS.items())}, NOTHING, NOTHING, b"", NOTHING, True, False)
    cycle.take_whole(SECRET)
    return cycle


@pytest.mark.parametrize(
    "value",
    [
        Ask(
            rid="r",
            request_id="req_1",
            headers=HEADERS,
            address="127.0.0.1",
            started_at_us=0,
            begun_at=0.0,
        ),
        Call(path=b"/", headers=HEADERS, request_id="req_1", is_stream=False),
        Exchange(False, headers=list(HEADERS.items()), chunks=[SECRET]),
        make_cycle(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_key_and_no_content_is_shown(value: object) -> None:
    assert SECRET.decode() not in f"{value!r} {value} {[value]}"
    if isinstance(value, Cycle):
        assert SECRET.decode() not in repr(cast(Any, value).send)


def test_no_secret_of_the_gateway_is_shown(tmp_path: Path) -> None:
    secret = "not-to-be-seen"
    config = ProxyConfig(
        redis_url=f"redis://:{secret}@localhost/0",
        peppers={"b1": secret.encode()},
        master_keys={"b1": secret.encode()},
        journal_dir=tmp_path,
        worker="w",
        metrics_dir=tmp_path,
        metrics_token=secret,
    )

    assert secret not in repr(config)
