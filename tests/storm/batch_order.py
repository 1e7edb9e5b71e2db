"""Run in a cluster's environment: orders one batch with so many items for a key; prints its id."""

import json
import sys

import django

django.setup()

from accounts.queries import find_key_by_secret  # noqa: E402
from accounts.snapshots import key_of, who_of  # noqa: E402
from billing.services.batch_admission import create_batch  # noqa: E402
from turnpike.control.scope import platform_scope, tenant_scope  # noqa: E402
from turnpike.env import env  # noqa: E402

MODEL = "claude-haiku-4-5-20251001"


def main() -> None:
    """Order it."""
    plan = json.loads(sys.argv[1])
    with platform_scope("storm"):
        row = find_key_by_secret(plan["key"], peppers=env().peppers)
        assert row is not None
        key, who = key_of(row), who_of(row.tenant)
    requests = [
        {
            "custom_id": f"item-{number}",
            "params": {
                "model": MODEL,
                "max_tokens": 64,
                "messages": [{"role": "user", "content": f"Item {number}, please."}],
            },
        }
        for number in range(plan["count"])
    ]
    with tenant_scope(key.tenant):
        batch = create_batch(
            key=key,
            who=who,
            body=json.dumps({"requests": requests}).encode(),
            api_version="2023-06-01",
            betas="",
        )
    sys.stdout.write(json.dumps({"id": batch.public_id}) + "\n")


if __name__ == "__main__":
    main()
