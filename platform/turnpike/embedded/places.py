"""Where embedded servers keep their files, and as whom they run.

As root the servers run as `postgres`, else `nobody`, because PostgreSQL refuses root. Where that
user cannot reach the state directory, the data lies in /var/lib/turnpike/<clone>, with a link in
the state directory. The modes of other people's directories are never touched.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnpike.embedded.engines import Engine, EngineProblem

SYSTEM_HOME = Path("/var/lib/turnpike")
# A unix socket's path holds 107 bytes; PostgreSQL adds 14 of them, Valkey 12.
RUN_PATH_BYTES_MAX = 90
ENGINE_STAMP = ".complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUser:
    """The account that servers run under when we are root."""

    name: str
    uid: int
    gid: int

    def popen_arguments(self) -> Mapping[str, Any]:
        """What `subprocess` needs to become this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": [], "cwd": "/"}


def server_user() -> ServerUser | None:
    """Whom to become before starting a server; None when we are not root and stay ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise EngineProblem("PostgreSQL does not run as root, and there is no user postgres or nobody.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The folders of one state directory's servers."""

    home: Path
    run: Path
    user: ServerUser | None

    def data(self, name: str) -> Path:
        """A server's own folder, made if need be and closed to everyone else."""
        return make_folder(self.home / name, owner=self.user)

    def runnable(self, engine: Engine) -> Path:
        """The engine's program where the servers' user can execute it, copied if need be."""
        if can_reach(engine.program, self.user):
            return engine.program
        if not engine.folders:
            raise EngineProblem(f"{engine.program} cannot be executed by {self.user}.")
        target = self.home / "engines" / f"{engine.kind}-{engine.version}"
        if not (target / ENGINE_STAMP).exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for folder in (target, target.parent):
                folder.chmod(0o755)  # whatever our umask is: nothing in there is ours alone
            for folder in engine.folders:
                shutil.copytree(folder, target / folder.name, symlinks=True)
            (target / ENGINE_STAMP).touch()
        first = engine.folders[0]
        return target / first.name / engine.program.relative_to(first)


def find_places(state_dir: Path, *, system_home: Path = SYSTEM_HOME) -> Places:
    """The folders for the servers of a state directory, made if need be."""
    user = server_user()
    state_dir = state_dir.resolve()
    state_dir.mkdir(parents=True, exist_ok=True)
    home = state_dir / "servers"
    if not home.exists() and not home.is_symlink():
        home.mkdir(mode=0o711)
    if not can_reach(home, user):
        home = _system_home(state_dir, link=home, parent=system_home)
    home = home.resolve()
    return Places(home=home, run=_run_folder(home, user), user=user)


def make_folder(path: Path, *, owner: ServerUser | None) -> Path:
    """Make a folder that only its owner may enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)
    return path


def can_reach(path: Path, user: ServerUser | None) -> bool:
    """Whether a user may enter the folder, or execute the file."""
    if user is None:
        return os.access(path, os.X_OK)
    answer = subprocess.run(  # noqa: S603 -- fixed program, and the path is an argument
        ["/bin/sh", "-c", 'test -x "$0"', str(path)],
        check=False,
        **user.popen_arguments(),
    )
    return answer.returncode == 0


def _system_home(state_dir: Path, *, link: Path, parent: Path) -> Path:
    digest = hashlib.sha256(str(state_dir).encode()).hexdigest()[:8]
    home = parent / f"{state_dir.parent.name}-{digest}"
    home.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not link.is_symlink():
        link.rmdir()
        link.symlink_to(home)
    return link


def _run_folder(home: Path, user: ServerUser | None) -> Path:
    run = home / "run"
    if len(os.fsencode(run)) > RUN_PATH_BYTES_MAX:
        digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
        run = Path(tempfile.gettempdir()) / f"turnpike-{digest}"
    made = make_folder(run, owner=None)
    owner = made.lstat()
    # In a shared temporary directory somebody else may have made this folder before us.
    expected = {os.geteuid()} | ({user.uid} if user else set())
    if owner.st_uid not in expected or not stat.S_ISDIR(owner.st_mode):
        raise EngineProblem(f"{run} belongs to somebody else.")
    made.chmod(0o700)
    return make_folder(made, owner=user)
