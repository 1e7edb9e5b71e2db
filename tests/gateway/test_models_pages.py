"""Pages of models: the API's own paging, over what a key may use."""

import dataclasses
from typing import Any

import pytest

from tests.gateway.conftest import SONNET, SONNET_PRICES, prices_of
from turnpike.contracts.snapshots import Candidate

NAMES = [f"claude-test-{number}" for number in range(1, 6)]


@pytest.fixture
def many(world: Any) -> Any:
    """Five models, the last one the newest; the second one retired."""
    models = {
        name: dataclasses.replace(
            world.plane.models[SONNET],
            model=name,
            aliases=(),
            created_at=f"2026-0{number}-01T00:00:00Z",
            lifecycle="retired" if number == 2 else "active",
        )
        for number, name in enumerate(NAMES, start=1)
    }
    prices = {name: prices_of(SONNET_PRICES) for name in NAMES}
    world.publish_plane(
        models=models,
        routes={name: (Candidate(upstream=9, upstream_model=name),) for name in NAMES},
        prices=(dataclasses.replace(world.plane.prices[0], prices=prices),),
    )
    return world


async def page(gateway: Any, query: str) -> dict[str, Any]:
    """One page of the list."""
    response = await gateway.client.get(f"/v1/models?{query}", headers=gateway.headers())
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def ids(found: dict[str, Any]) -> list[str]:
    """The models of a page, by their number."""
    return [model["id"].removeprefix("claude-test-") for model in found["data"]]


async def test_newest_come_first_and_retired_ones_only_if_asked_for(
    gateway: Any, many: Any
) -> None:
    usual = await page(gateway, "")
    retired = await page(gateway, "lifecycle%5B%5D=retired&lifecycle%5B%5D=active")

    assert ids(usual) == ["5", "4", "3", "1"]
    assert ids(retired) == ["5", "4", "3", "2", "1"]


async def test_pages_follow_one_another_forwards(gateway: Any, many: Any) -> None:
    first = await page(gateway, "limit=2")
    second = await page(gateway, f"limit=2&after_id={first['last_id']}")

    assert (ids(first), first["has_more"]) == (["5", "4"], True)
    assert (ids(second), second["has_more"]) == (["3", "1"], False)


async def test_pages_follow_one_another_backwards(gateway: Any, many: Any) -> None:
    found = await page(gateway, "limit=2&before_id=claude-test-1")

    assert (ids(found), found["has_more"]) == (["4", "3"], True)
    assert (found["first_id"], found["last_id"]) == ("claude-test-4", "claude-test-3")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit: Input should be between 1 and 1000"),
        ("limit=1001", "limit: Input should be between 1 and 1000"),
        ("limit=x", "limit: Input should be between 1 and 1000"),
        ("after_id=nope", "after_id: no such model in this list"),
        ("lifecycle[]=new", "lifecycle: Input should be"),
        ("x=" + "y" * 5_000, "The query is too long"),
    ],
)
async def test_bad_query_is_refused(gateway: Any, many: Any, query: str, message: str) -> None:
    response = await gateway.client.get(f"/v1/models?{query}", headers=gateway.headers())

    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_key_sees_only_its_own_models(gateway: Any, many: Any) -> None:
    many.publish(models=("claude-test-3",))

    assert ids(await page(gateway, "")) == ["3"]
    denied = await gateway.client.get("/v1/models/claude-test-5", headers=gateway.headers())
    assert denied.status_code == 404


async def test_revoked_key_cannot_list(gateway: Any, many: Any) -> None:
    await page(gateway, "")
    many.revoke_key()

    response = await gateway.client.get("/v1/models", headers=gateway.headers())

    assert response.status_code == 401
