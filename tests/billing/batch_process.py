"""A real worker that is killed where it is told: ``python batch_process.py POINT``."""

import os
import signal
import sys
import time

import django

django.setup()

from billing.services.batch_running import run_parts  # noqa: E402

DEADLINE_SECONDS = 60.0


def main() -> None:
    """Run until killed or done."""
    point = sys.argv[1] if len(sys.argv) > 1 else ""

    def mark(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    run_parts(until_seconds=time.monotonic() + DEADLINE_SECONDS, mark=mark)


if __name__ == "__main__":
    main()
