#!/usr/bin/env python3
"""The one door for operators: puts platform/ on the import path, then runs Django."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# Commands that change the schema run as the owner of the tables; all others as the application's
# role, to which row level security applies.
OWNER_COMMANDS = {
    *("migrate", "makemigrations", "sqlmigrate", "showmigrations", "squashmigrations"),
    *("backup", "restore"),
}


def main() -> None:
    """Run the command named on the command line."""
    sys.path.insert(0, str(ROOT / "platform"))
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turnpike.settings")
    if len(sys.argv) > 1 and sys.argv[1] in OWNER_COMMANDS:
        os.environ.setdefault("DATABASE_AS_OWNER", "1")
    if sys.argv[1:2] == ["up"]:
        # It watches the others all the time and needs no models: half as large, and sooner there.
        from turnpike.management.commands.up import Command

        Command().run_from_argv(sys.argv)
        return

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
