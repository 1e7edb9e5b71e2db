"""The pages and answers that belong to no app."""

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


def test_the_start_page_names_the_simulator_when_it_answers() -> None:
    page = Client().get("/")

    assert page.status_code == 200
    assert "The simulator answers." in page.content.decode()


def test_the_schema_lists_the_management_api() -> None:
    answer = Client().get("/api/schema?format=json")

    assert answer.status_code == 200
    assert {"/api/v1/keys", "/api/v1/requests"} <= set(answer.json()["paths"])


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/organizations/nowhere", {"type": "error"}),
        ("/api/v1/nowhere", {"status": 404, "code": "not_found"}),
    ],
)
def test_an_unknown_path_answers_in_its_apis_shape(path: str, shape: dict[str, object]) -> None:
    answer = Client().get(path)

    assert answer.status_code == 404
    assert shape.items() <= answer.json().items()


def test_an_unknown_path_of_the_admin_api_has_a_request_id() -> None:
    answer = Client().get("/v1/organizations/nowhere")

    assert answer["request-id"].startswith("req_01")
    assert answer.json()["request_id"] == answer["request-id"]


def test_an_unknown_page_is_plain_text() -> None:
    answer = Client().get("/nowhere")

    assert (answer.status_code, answer["content-type"]) == (404, "text/plain; charset=utf-8")


def test_ready_tells_the_parts(redis_client: object) -> None:
    answer = Client().get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "parts": {"postgres": "ok", "redis": "ok"}}
