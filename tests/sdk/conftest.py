"""Clients of the official Python SDK, pointed at a running platform."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import anthropic
import httpx
import pytest

from tests.support.plain_http import NO_AUTHORITIES
from tests.support.running import Platform

ClientFor = Callable[[str], anthropic.Anthropic]
IssueKey = Callable[..., str]


@pytest.fixture(scope="session")
def base_url(platform: Platform) -> str:
    """Where the platform answers."""
    return platform.base_url


@pytest.fixture(scope="session")
def issue_key(platform: Platform) -> IssueKey:
    """Makes a tenant of its own with a tier and credit in dollars; returns its key."""

    def _issue_key(*, credit: str, tier: str = "pro") -> str:
        name = f"sdk-{uuid.uuid4().hex[:8]}"
        return str(platform.issue_key(tenant=name, tier=tier, credit=credit)["api_key"])

    return _issue_key


@pytest.fixture(scope="session")
def api_key(issue_key: IssueKey) -> str:
    """A key whose tenant meets no limit in these tests."""
    return issue_key(credit="1000", tier="enterprise")


@pytest.fixture
def client_for(base_url: str) -> Iterator[ClientFor]:
    """Makes a client for a key; none of them retries, so a refusal is seen at once."""
    made: list[anthropic.Anthropic] = []

    def _client_for(key: str) -> anthropic.Anthropic:
        made.append(anthropic.Anthropic(base_url=base_url, api_key=key, max_retries=0, timeout=30))
        return made[-1]

    yield _client_for
    for client in made:
        client.close()


@pytest.fixture
def client(client_for: ClientFor, api_key: str) -> anthropic.Anthropic:
    """The synchronous client with the demo key."""
    return client_for(api_key)


@pytest.fixture
async def async_client(base_url: str, api_key: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The asynchronous client with the demo key."""
    async with anthropic.AsyncAnthropic(
        base_url=base_url, api_key=api_key, max_retries=0, timeout=30
    ) as made:
        yield made


@pytest.fixture
def wire(base_url: str, api_key: str) -> Iterator[httpx.Client]:
    """A plain HTTP client with a good key, for what no SDK would send."""
    headers = {"x-api-key": api_key, "anthropic-version": "2023-06-01"}
    with httpx.Client(
        base_url=base_url, headers=headers, timeout=30, verify=NO_AUTHORITIES
    ) as made:
        yield made


@pytest.fixture
def unique() -> str:
    """Sixteen characters that no other test has used, for what is cached."""
    return uuid.uuid4().hex[:16]
