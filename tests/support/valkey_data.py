"""What a crash does to the data of a Valkey that has stopped."""

import os
import shutil

from turnpike.embedded.valkey import EmbeddedValkey


def wipe(server: EmbeddedValkey) -> None:
    """All data is gone; what a node of a cluster knows of its neighbours stays."""
    folder = server.places.home / "valkey"
    shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
    (folder / "dump.rdb").unlink(missing_ok=True)


def cut_log(server: EmbeddedValkey, byte_count: int) -> int:
    """Cut bytes off the end of the log, as a crash of the host would do; how many there were."""
    folder = server.places.home / "valkey" / "appendonlydir"
    log = max(folder.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
    size = log.stat().st_size
    os.truncate(log, max(0, size - byte_count))
    return min(size, byte_count)
