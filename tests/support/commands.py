"""Management commands run one after the other by one process that stays.

Django takes longer to start than most commands take to run, and tests ask for dozens. What is said
of a command as people start it is tested where it is started as they do, by `Platform.manage`.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from tests.support.servers import ROOT

STOP_SECONDS_MAX = 10
SERVE = "from tests.support.commands import serve; serve({answers_fd})"


class CommandProcess:
    """Started by the first command, in the platform's own environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "PYTHONPATH": "platform:."}
        self._process: subprocess.Popen[str] | None = None
        self._answers: IO[str]

    def run(self, *arguments: str) -> str:
        """What a command printed. Raises AssertionError with its words where it failed."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(arguments) + "\n")
        process.stdin.flush()
        line = self._answers.readline()
        assert line, f"{arguments}: the process of the commands has ended."
        answer = json.loads(line)
        assert "error" not in answer, f"{arguments}: {answer['printed']}{answer['error']}"
        return str(answer["printed"])

    def close(self) -> None:
        """End the process: it has no more to read."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        finally:
            self._process.kill()
            self._process.wait()
            self._answers.close()

    def _start(self) -> "subprocess.Popen[str]":
        # Answers have a pipe of their own: whatever else is printed cannot pass for one.
        reading, writing = os.pipe()
        self._answers = os.fdopen(reading)
        code = SERVE.format(answers_fd=writing)
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            pass_fds=(writing,),
            text=True,
        )
        os.close(writing)
        return self._process


@contextmanager
def command_process(environment: Mapping[str, str]) -> Iterator[CommandProcess]:
    """One that ends with the block."""
    commands = CommandProcess(environment)
    try:
        yield commands
    finally:
        commands.close()


def serve(answers_fd: int) -> None:
    """Run the commands that come in, a JSON list of words on each line, until there are no more."""
    with os.fdopen(answers_fd, "w") as answers:
        for line in sys.stdin:
            answers.write(json.dumps(_answer(json.loads(line))) + "\n")
            answers.flush()


def _answer(arguments: list[str]) -> dict[str, str]:
    # Only where Django is set up already.
    from django.core.management import call_command
    from django.db import connections

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            call_command(*arguments, stdout=printed)
    except (Exception, SystemExit):  # noqa: BLE001  # whatever it was, the test is told
        return {"printed": printed.getvalue(), "error": traceback.format_exc()}
    finally:
        connections.close_all()
    return {"printed": printed.getvalue()}
