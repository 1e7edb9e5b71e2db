"""AssetStorage: names of static files that change with their content, without collecting them."""

import hashlib
from functools import cache
from pathlib import Path

from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage

DIGEST_LENGTH = 10


class AssetStorage(StaticFilesStorage):
    """Adds a digest of the file to its address, so that browsers may keep what they have."""

    def url(self, name: str | None, force: bool = False) -> str:  # noqa: FBT001, FBT002 - Django's
        """The address of a file. Raises ValueError for one that does not exist."""
        assert name is not None
        path, _, fragment = name.partition("#")
        address = f"{super().url(path)}?v={digest_of(path)}"
        return f"{address}#{fragment}" if fragment else address


@cache
def digest_of(name: str) -> str:
    """The beginning of the digest of a static file."""
    found = finders.find(name)
    if not found:
        raise ValueError(f"There is no static file {name!r}.")
    assert isinstance(found, str)
    return hashlib.sha256(Path(found).read_bytes()).hexdigest()[:DIGEST_LENGTH]
