"""A long list of keys comes in pages."""

import re

import pytest
import redis

from accounts.models import ApiKey, Role
from tests.billing.usage_world import make_key
from tests.console.console_world import client_for, make_world
from turnpike.control.scope import platform_scope
from turnpike.web.keys import SHOWN

pytestmark = pytest.mark.django_db


def test_every_key_is_on_one_page(redis_client: redis.Redis) -> None:
    world = make_world(redis_client, days=1)
    for _ in range(SHOWN):
        make_key(world.shop.workspace)
    client = client_for(world.members[Role.OWNER])
    with platform_scope("tests"):
        known = {key.public_id for key in ApiKey.objects.filter(tenant=world.shop.tenant)}

    first = client.get("/console/keys").content.decode()
    older = re.search(r'href="(/console/keys\?before=\d+)"', first)
    assert older is not None
    second = client.get(older[1]).content.decode()

    on_first, on_second = ({name for name in known if name in text} for text in (first, second))
    assert len(on_first) == SHOWN
    assert on_first | on_second == known
    assert on_first & on_second == set()
    assert ">Older<" in first
    assert ">Older<" not in second
