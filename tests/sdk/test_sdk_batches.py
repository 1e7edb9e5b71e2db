"""`client.messages.batches.*` of the official SDK, against the running platform."""

import time

import anthropic
import pytest
from anthropic.types.messages import MessageBatch

from tests.sdk.conftest import ClientFor, IssueKey

MODEL = "claude-haiku-4-5-20251001"
SECONDS_MAX = 90.0


def ask(number: int) -> dict[str, object]:
    """One request of a batch."""
    return {
        "custom_id": f"ask-{number}",
        "params": {
            "model": MODEL,
            "max_tokens": 50,
            "messages": [{"role": "user", "content": f"Number {number}"}],
        },
    }


def ended(client: anthropic.Anthropic, batch_id: str) -> MessageBatch:
    """The batch, once it has ended."""
    until = time.monotonic() + SECONDS_MAX
    while time.monotonic() < until:
        batch = client.messages.batches.retrieve(batch_id)
        if batch.processing_status == "ended":
            return batch
        time.sleep(0.5)
    raise AssertionError(f"{batch_id} has not ended.")


def test_a_batch_from_its_order_to_its_deletion(client: anthropic.Anthropic, base_url: str) -> None:
    made = client.messages.batches.create(requests=[ask(n) for n in range(5)])  # type: ignore[misc]
    assert made.id.startswith("msgbatch_01")
    assert made.request_counts.processing == 5

    batch = ended(client, made.id)
    results = {line.custom_id: line.result for line in client.messages.batches.results(made.id)}

    assert batch.request_counts.succeeded == 5
    assert batch.results_url == f"{base_url}/v1/messages/batches/{made.id}/results"
    assert len(results) == 5
    first = results["ask-0"]
    assert first.type == "succeeded"
    assert first.message.usage.service_tier == "batch"
    assert client.messages.batches.delete(made.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(made.id)


def test_pages_of_batches_and_a_cancelation(client_for: ClientFor, issue_key: IssueKey) -> None:
    client = client_for(issue_key(credit="5"))
    made = [client.messages.batches.create(requests=[ask(0)]).id for _ in range(3)]  # type: ignore[list-item]

    canceled = client.messages.batches.cancel(made[2])
    listed = [batch.id for batch in client.messages.batches.list(limit=2)]

    assert canceled.processing_status in ("canceling", "ended")
    assert listed == made[::-1]
    last = ended(client, made[2])
    assert last.request_counts.canceled + last.request_counts.succeeded == 1


def test_a_batch_beyond_the_credit_is_refused(client_for: ClientFor, issue_key: IssueKey) -> None:
    client = client_for(issue_key(credit="0.0001"))

    with pytest.raises(anthropic.APIStatusError) as refused:
        client.messages.batches.create(requests=[ask(0)])  # type: ignore[list-item]

    assert refused.value.status_code == 402
