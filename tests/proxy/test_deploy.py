"""What nginx in front expects of the servers behind it."""

import re

from proxy.server import Worker
from tests.support.servers import ROOT


def test_an_idle_connection_is_closed_by_nginx_and_never_by_the_server_behind() -> None:
    text = (ROOT / "platform/deploy/nginx.conf").read_text()
    upstreams = re.findall(r"upstream (\w+) \{(.*?)\}", text, re.DOTALL)
    kept_seconds = {
        name: int(seconds)
        for name, block in upstreams
        for seconds in re.findall(r"keepalive_timeout (\d+)s;", block)
    }

    assert set(kept_seconds) == {"proxy", "control"}
    assert max(kept_seconds.values()) < Worker.CONFIG_KWARGS["timeout_keep_alive"]
