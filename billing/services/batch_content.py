"""What batches keep of prompts and answers: sealed under a key of the batch."""

import json
from uuid import UUID

from billing.models.batches import MessageBatch
from turnpike.env import env
from turnpike.kernel import ids, sealing
from turnpike.kernel.sealing import DataKey


def make_batch_key(batch: UUID) -> tuple[DataKey, str]:
    """A new key for a batch, and the same sealed for its row."""
    return sealing.make_data_key(place=_key_place(batch), master_keys=env().sealing_keys)


def open_batch_key(batch: MessageBatch) -> DataKey:
    """The key of a batch. Raises CannotOpen where no known master key opens it."""
    return sealing.open_data_key(
        batch.sealed_key, place=_key_place(batch.id), master_keys=env().sealing_keys
    )


def reseal_batch_key(batch: MessageBatch) -> str:
    """The key of a batch under the first master key. Raises CannotOpen."""
    keys, place = env().sealing_keys, _key_place(batch.id)
    return sealing.seal(
        sealing.unseal(batch.sealed_key, place=place, master_keys=keys),
        place=place,
        master_keys=keys,
    )


def place_of(number: int, column: str) -> str:
    """The associated data of an item's content, so that no blob can be moved to another item."""
    return f"billing_batch_item.{column}.{number}"


def error_result(error_type: str, message: str, *, request_id: UUID) -> bytes:
    """The result of an item that failed, in the API's shape."""
    error = {
        "type": "error",
        "error": {"type": error_type, "message": message},
        "request_id": ids.public_id(ids.REQUEST, request_id),
    }
    return json.dumps({"type": "errored", "error": error}, ensure_ascii=False).encode()


def _key_place(batch: UUID) -> str:
    return f"billing_message_batch.sealed_key.{batch}"
