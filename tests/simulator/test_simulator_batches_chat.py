"""Batches, and OpenAI's manners."""

import json
from collections.abc import Callable
from typing import Any

import httpx

Json = dict[str, Any]
Billed = Callable[[], list[Json]]
BATCHES = "/v1/messages/batches"


def item(ident: str, **fields: Any) -> Json:
    turns = [{"role": "user", "content": "[[tokens=10]]"}]
    return {
        "custom_id": ident,
        "params": {"model": "claude-opus-5", "max_tokens": 50, "messages": turns, **fields},
    }


def create(simulator: httpx.Client, *items: Json) -> Json:
    created: Json = simulator.post(BATCHES, json={"requests": items}).raise_for_status().json()
    return created


def test_a_batch_ends_with_a_result_for_each_item(simulator: httpx.Client, billed: Billed) -> None:
    batch = create(simulator, item("good"), item("bad", max_tokens=None), item("live", stream=True))
    assert (batch["processing_status"], batch["request_counts"]["processing"]) == ("in_progress", 3)
    assert billed() == []

    ended = simulator.get(f"{BATCHES}/{batch['id']}").json()
    lines = simulator.get(ended["results_url"]).text.splitlines()

    results = {line["custom_id"]: line["result"] for line in map(json.loads, lines)}
    assert ended["processing_status"] == "ended"
    assert (ended["request_counts"]["succeeded"], ended["request_counts"]["errored"]) == (1, 2)
    assert results["good"]["message"]["usage"]["service_tier"] == "batch"
    assert results["bad"]["error"]["error"]["type"] == "invalid_request_error"
    assert [row["usage"]["output_tokens"] for row in billed()] == [10]


def test_a_canceled_batch_bills_nothing(simulator: httpx.Client, billed: Billed) -> None:
    batch = create(simulator, item("one"))

    canceling = simulator.post(f"{BATCHES}/{batch['id']}/cancel").json()
    ended = simulator.get(f"{BATCHES}/{batch['id']}").json()

    assert canceling["processing_status"] == "canceling"
    assert ended["request_counts"]["canceled"] == 1
    assert billed() == []


def test_batches_are_listed_newest_first_and_deleted_once_ended(simulator: httpx.Client) -> None:
    first, second = create(simulator, item("a")), create(simulator, item("b"))
    assert simulator.delete(f"{BATCHES}/{first['id']}").status_code == 400

    listed = simulator.get(BATCHES, params={"limit": 1}).json()
    rest = simulator.get(BATCHES, params={"after_id": listed["last_id"]}).json()

    assert ([b["id"] for b in listed["data"]], listed["has_more"]) == ([second["id"]], True)
    assert [b["id"] for b in rest["data"]] == [first["id"]]
    assert simulator.delete(f"{BATCHES}/{first['id']}").json()["type"] == "message_batch_deleted"
    assert simulator.get(f"{BATCHES}/{first['id']}").status_code == 404
    assert simulator.put(f"{BATCHES}/{second['id']}").status_code == 404


def test_custom_ids_are_checked_at_once(simulator: httpx.Client) -> None:
    for items in ([], [item("a b")], [item("a"), item("a")], [{"custom_id": "a"}]):
        response = simulator.post(BATCHES, json={"requests": items})
        assert response.status_code == 400


def chat(simulator: httpx.Client, prompt: str = "[[tokens=10]]", **fields: Any) -> httpx.Response:
    turns = [{"role": "system", "content": "s" * 40}, {"role": "user", "content": prompt}]
    body = {"model": "claude-opus-5", "messages": turns, **fields}
    return simulator.post("/v1/chat/completions", json=body)


def test_a_chat_completion_is_billed_in_the_shape_of_messages(
    simulator: httpx.Client, billed: Billed
) -> None:
    completion = chat(simulator, max_completion_tokens=4).json()

    assert completion["object"] == "chat.completion"
    assert completion["choices"][0]["finish_reason"] == "length"
    assert completion["usage"]["prompt_tokens"] == 14
    assert completion["usage"]["completion_tokens"] == 4
    assert billed()[0]["usage"]["input_tokens"] == 14
    assert billed()[0]["usage"]["output_tokens"] == 4


def test_chat_chunks_end_with_usage_and_done(simulator: httpx.Client, billed: Billed) -> None:
    text = chat(simulator, stream=True, stream_options={"include_usage": True}).text

    *chunks, done = text.removesuffix("\n\n").split("\n\n")
    documents = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    assert done == "data: [DONE]"
    assert documents[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert documents[-2]["choices"][0]["finish_reason"] == "stop"
    assert (documents[-1]["choices"], documents[-1]["usage"]["completion_tokens"]) == ([], 10)
    assert (billed()[0]["usage"]["output_tokens"], billed()[0]["complete"]) == (10, True)


def test_chat_tools_are_called_and_answered(simulator: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"plate": {"type": "string"}}, "required": ["plate"]}
    tools = [{"type": "function", "function": {"name": "get_lane", "parameters": schema}}]

    message = chat(simulator, "Use get_lane on `AB-1`", tools=tools).json()["choices"][0]["message"]
    streamed = chat(simulator, "Use get_lane on `AB-1`", tools=tools, stream=True).text
    call = message["tool_calls"][0]
    turns = [
        {"role": "user", "content": "Use get_lane"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "Lane 4"},
    ]
    answer = chat(simulator, messages=turns, tools=tools).json()["choices"][0]

    assert json.loads(call["function"]["arguments"]) == {"plate": "AB-1"}
    assert '"finish_reason":"tool_calls"' in streamed
    assert answer["message"]["content"] == "The tool answered: Lane 4"
    assert answer["finish_reason"] == "stop"


def test_chat_errors_have_the_other_shape(simulator: httpx.Client) -> None:
    response = chat(simulator, model="gpt-9")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
