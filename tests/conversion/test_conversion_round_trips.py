"""Messages to Chat and back keeps everything that both can say."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.conversion.chat_request import messages_body_of
from proxy.conversion.chat_response import completion_of
from proxy.conversion.messages_request import chat_body_of
from proxy.conversion.messages_response import message_of
from proxy.conversion.traits import EFFORTS, ModelTraits

FULL = ModelTraits(can_stop_thinking=True, efforts=frozenset(EFFORTS))

texts = st.text(min_size=1, max_size=12)
words = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
base64s = st.from_regex(r"[A-Za-z0-9+/]{4,16}={0,2}", fullmatch=True)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=3)


def block(kind: str, **fields: Any) -> Any:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


text_blocks = block("text", text=texts)
base64_sources = st.fixed_dictionaries(
    {
        "type": st.just("base64"),
        "media_type": st.sampled_from(["image/png", "image/jpeg", "image/gif", "image/webp"]),
        "data": base64s,
    }
)
url_sources = st.fixed_dictionaries(
    {"type": st.just("url"), "url": words.map(lambda word: f"https://example.org/{word}")}
)
images = block("image", source=base64_sources | url_sources)
pdf_sources = st.fixed_dictionaries(
    {"type": st.just("base64"), "media_type": st.just("application/pdf"), "data": base64s}
)
documents = block("document", source=pdf_sources, title=words)
user_blocks = st.lists(text_blocks | images | documents, min_size=1, max_size=3)
tool_uses = block("tool_use", id=words, name=words, input=objects)


@st.composite
def conversations(draw: Any) -> list[dict[str, Any]]:
    """Turns by turns, each call answered in the next one."""
    messages = [{"role": "user", "content": draw(user_blocks)}]
    for _ in range(draw(st.integers(0, 3))):
        calls = draw(st.lists(tool_uses, max_size=2))
        said = draw(st.lists(text_blocks, min_size=0 if calls else 1, max_size=2))
        messages.append({"role": "assistant", "content": [*said, *calls]})
        results = [
            {
                "type": "tool_result",
                "tool_use_id": call["id"],
                "content": draw(texts | st.lists(text_blocks, min_size=2, max_size=2)),
            }
            for call in calls
        ]
        more = draw(user_blocks) if not results or draw(st.booleans()) else []
        messages.append({"role": "user", "content": [*results, *more]})
    return messages


tools = st.lists(
    st.fixed_dictionaries(
        {"name": words, "input_schema": objects},
        optional={"description": texts, "strict": st.booleans()},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tool: tool["name"],
)
choices = st.fixed_dictionaries(
    {"type": st.sampled_from(["auto", "any"])},
    optional={"disable_parallel_tool_use": st.just(True)},
) | st.just({"type": "none"})
formats = st.fixed_dictionaries({"type": st.just("json_schema"), "schema": objects})
configs = st.fixed_dictionaries({"effort": st.sampled_from(EFFORTS)}, optional={"format": formats})


@st.composite
def bodies(draw: Any) -> dict[str, Any]:
    """A body whose every field a chat completion can say."""
    body = draw(
        st.fixed_dictionaries(
            {
                "model": words,
                "max_tokens": st.integers(0, 10_000),
                "messages": conversations(),
            },
            optional={
                "system": texts,
                "stop_sequences": st.lists(words, min_size=1, max_size=4),
                "stream": st.booleans(),
                "temperature": st.floats(0, 1),
                "top_p": st.floats(0, 1),
                "output_config": configs,
                "service_tier": st.sampled_from(["auto", "standard_only"]),
            },
        )
    )
    if draw(st.booleans()):
        body["tools"] = draw(tools)
        if draw(st.booleans()):
            body["tool_choice"] = draw(choices)
    return dict(body)


def there_and_back(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    top = msgspec.json.decode(json.dumps(body).encode(), type=dict[str, msgspec.Raw])
    chat = chat_body_of(top, upstream_model=body["model"], traits=FULL)
    back = messages_body_of(chat.body, traits_of=lambda _: FULL)
    return json.loads(back.body), chat.ignored + back.ignored


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """A string for what is one text alone: both APIs take the one for the other."""
    content = message["content"]
    is_text = len(content) == 1 and content[0]["type"] == "text"
    return {**message, "content": content[0]["text"] if is_text else content}


@settings(max_examples=150)
@given(bodies())
def test_request_comes_back_as_it_was(body: dict[str, Any]) -> None:
    back, ignored = there_and_back(body)

    assert ignored == ()
    assert back == {**body, "messages": [plain(message) for message in body["messages"]]}


answers = st.fixed_dictionaries(
    {
        "id": st.just("msg_1"),
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": words,
        "stop_sequence": st.none(),
        "usage": st.fixed_dictionaries(
            {
                "input_tokens": st.integers(0, 10**6),
                "output_tokens": st.integers(0, 10**6),
                "cache_creation_input_tokens": st.integers(1, 10**6),
                "cache_read_input_tokens": st.integers(1, 10**6),
            }
        ),
    }
)


@settings(max_examples=100)
@given(answers, st.lists(text_blocks, max_size=1), st.lists(tool_uses, max_size=2))
def test_answer_comes_back_as_it_was(
    answer: dict[str, Any], said: list[Any], calls: list[Any]
) -> None:
    answer |= {"content": said + calls, "stop_reason": "tool_use" if calls else "end_turn"}

    chat = completion_of(json.dumps(answer).encode(), created=0)
    back = message_of(chat, message_id="msg_1", model="m", input_estimate=0)

    assert json.loads(back.body) == answer
    assert back.is_estimated is False
