"""The codec: values to JSON and back, tolerant of other releases, strict about shapes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnpike.contracts import paths
from turnpike.contracts.snapshots import (
    LIMIT_NAMES,
    Budget,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    TenantTerms,
    TenantWho,
    WorkspaceSnapshot,
)
from turnpike.contracts.usage import Attempt, UsageEvent
from turnpike.kernel import codec, errors

COUNTS = st.integers(0, 2**53)
TEXTS = st.text(max_size=20)
LIMITS = st.builds(Limits, **{name: st.none() | COUNTS for name in LIMIT_NAMES})
BUDGETS = st.tuples(st.builds(Budget, period=st.sampled_from(["day", "month"]), limit_micro=COUNTS))
JSON = st.recursive(
    st.none() | st.booleans() | COUNTS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.builds(
    KeySnapshot,
    key=COUNTS,
    key_id=TEXTS,
    tenant=COUNTS,
    workspace=COUNTS,
    models=st.none() | st.tuples(TEXTS, TEXTS),
    expires_at_us=st.none() | COUNTS,
    limits=LIMITS,
    budgets=BUDGETS,
)
WHO = st.builds(
    TenantWho,
    tenant_id=TEXTS,
    workspaces=st.dictionaries(
        TEXTS, st.builds(WorkspaceSnapshot, workspace_id=TEXTS, limits=LIMITS, budgets=BUDGETS)
    ),
)
EVENTS = st.builds(
    UsageEvent,
    rid=TEXTS,
    rank=st.integers(0, 4),
    status=TEXTS,
    tenant=COUNTS,
    workspace=COUNTS,
    key=COUNTS,
    model=TEXTS,
    upstream_model=TEXTS,
    price_set=COUNTS,
    started_at_us=COUNTS,
    finished_at_us=COUNTS,
    hold_micro=COUNTS,
    usage=st.dictionaries(TEXTS, JSON, max_size=3),
    attempts=st.tuples(st.builds(Attempt, n=COUNTS, upstream=COUNTS)),
)


@given(value=KEYS | WHO | EVENTS | st.builds(TenantTerms, tier=TEXTS, book=COUNTS))
def test_values_read_back_as_they_were(value: Any) -> None:
    assert codec.from_json(type(value), codec.to_json(value)) == value


def test_fields_of_a_newer_release_are_ignored_and_missing_ones_have_defaults() -> None:
    text = '{"period":"day","limit_micro":5,"colour":"red"}'
    terms = '{"tier":"pro","book":1}'

    assert codec.from_json(Budget, text) == Budget(period="day", limit_micro=5)
    assert codec.from_json(TenantTerms, terms) == TenantTerms(tier="pro", book=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"period":"day"}',
        '{"period":"day","limit_micro":"5"}',
        '{"period":"day","limit_micro":true}',
        '{"period":5,"limit_micro":5}',
        "[" * 100_000,
    ],
)
def test_another_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        codec.from_json(Budget, text)


def test_what_is_no_value_is_not_written() -> None:
    with pytest.raises(TypeError, match="Cannot write set"):
        codec.to_json({1, 2})


def test_json_is_compact_and_keeps_letters() -> None:
    text = codec.to_json(ModelSnapshot(model="é", display_name="x", capabilities={"a": [1, None]}))

    assert '"model":"é"' in text
    assert json.loads(text)["capabilities"] == {"a": [1, None]}


def test_limits_stand_above_others_where_they_are_set() -> None:
    base = Limits(requests_per_minute=50, concurrency=10)

    assert Limits(concurrency=3).over(base) == Limits(requests_per_minute=50, concurrency=3)


@pytest.mark.parametrize(
    ("method", "path", "plane"),
    [
        ("POST", "/v1/messages", "proxy"),
        ("POST", "/v1/messages/count_tokens", "proxy"),
        ("POST", "/v1/chat/completions", "proxy"),
        ("GET", "/v1/models/claude-opus-5", "proxy"),
        ("GET", "/v1/unknown", "proxy"),
        ("HEAD", "/api/hello", "proxy"),
        ("HEAD", "/", "proxy"),
        ("GET", "/", "control"),
        ("POST", "/v1/messages/batches", "control"),
        ("GET", "/v1/messages/batches/msgbatch_1", "control"),
        ("GET", "/v1/messages/batches-not", "proxy"),
        ("GET", "/v1/organizations/usage_report/messages", "control"),
        ("GET", "/api/v1/usage", "control"),
        ("GET", "/console", "control"),
    ],
)
def test_each_path_has_one_plane(method: str, path: str, plane: str) -> None:
    assert paths.plane_of(path, method) == plane


def test_every_expected_failure_has_a_code_and_a_status_of_its_own() -> None:
    kinds = errors.TurnpikeError.__subclasses__()

    assert len({kind.code for kind in kinds}) == len(kinds) == 8
    assert sorted(kind.status for kind in kinds) == [400, 401, 402, 403, 404, 409, 429, 503]
    assert errors.InvalidInput("no", field="name").field == "name"
    assert errors.NotFound("gone").message == "gone"
