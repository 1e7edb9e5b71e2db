"""Upstreams and their routes; tiers and what tenants buy."""

from typing import Any

import pytest

from billing.models.catalog import PriceBook
from billing.models.tiers import Subscription, Tier
from billing.models.upstreams import Route, Upstream, UpstreamCredential
from billing.services.catalog import import_catalog
from billing.services.tiers import (
    set_disconnect,
    set_group_limits,
    set_overrides,
    set_prices,
    set_tier,
)
from billing.services.upstreams import add_upstream, set_credential, set_enabled
from billing.snapshots import plane_snapshot, terms_of
from tests.billing.catalog_file import EditCatalog
from tests.billing.ledger_world import ACTOR, make_tenant
from turnpike.contracts.snapshots import Limits, credential_place
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.env import env
from turnpike.kernel import sealing
from turnpike.kernel.errors import InvalidInput, NotFound

pytestmark = pytest.mark.django_db


def test_the_simulator_has_every_model_and_anthropic_what_it_still_serves() -> None:
    import_catalog()

    simulator = add_upstream(
        name="simulator",
        kind="anthropic",
        base_url="http://127.0.0.1:8001/",
        credential="sim",
        is_simulator=True,
        send_request_id=True,
        priority=9,
    )
    real = add_upstream(
        name="anthropic",
        kind="anthropic",
        base_url="https://api.anthropic.com",
        credential="s" * 40,
    )

    plane = plane_snapshot()
    assert len(plane.routes) == 29
    retired = plane.routes["claude-3-opus-20240229"]
    current = plane.routes["claude-opus-5-5"]
    assert [item.upstream for item in retired] == [simulator.pk]
    assert [(item.upstream, item.priority) for item in current] == [(real.pk, 0), (simulator.pk, 9)]
    assert plane.upstreams[str(simulator.pk)].base_url == "http://127.0.0.1:8001"
    assert plane.upstreams[str(simulator.pk)].send_request_id is True
    assert plane.upstreams[str(real.pk)].silence_timeout_seconds == 300.0


def test_models_imported_later_are_routed_too(edited: EditCatalog) -> None:
    import_catalog(edited(lambda c: c["models"].pop(0)))
    add_upstream(
        name="sim", kind="anthropic", base_url="http://s", credential=None, is_simulator=True
    )

    assert import_catalog().routes_added == 1

    assert Route.objects.count() == 29


def test_a_credential_is_sealed_for_its_row_and_kept_while_the_secret_is_the_same() -> None:
    upstream = add_upstream(
        name="u", kind="openai", base_url="https://x", credential="sk-secret-1", models=[]
    )
    first = upstream.credentials.get()

    assert set_credential(upstream=upstream, secret="sk-secret-1").sealed == first.sealed
    second = set_credential(upstream=upstream, secret="sk-secret-2")

    assert second.pk == first.pk
    assert second.sealed != first.sealed
    keys = env().sealing_keys
    place = credential_place(second.pk)
    assert sealing.unseal(second.sealed, place=place, master_keys=keys) == "sk-secret-2"
    assert "secret" not in str(list(UpstreamCredential.objects.values()))


def test_an_upstream_out_of_service_answers_for_nothing() -> None:
    import_catalog()
    add_upstream(
        name="u", kind="openai", base_url="https://x", credential=None, models=["claude-opus-5"]
    )
    assert list(plane_snapshot().routes) == ["claude-opus-5"]

    set_enabled(name="u", is_enabled=False)

    assert plane_snapshot().routes == {}
    assert Upstream.objects.get().is_enabled is False


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"kind": "soap"}, InvalidInput),
        ({"base_url": "ftp://x"}, InvalidInput),
        ({"models": ["claude-unknown"]}, NotFound),
    ],
)
def test_a_bad_upstream_is_refused(values: dict[str, Any], error: type[Exception]) -> None:
    fields: dict[str, Any] = {"name": "u", "kind": "openai", "base_url": "https://x", **values}

    with pytest.raises(error):
        add_upstream(credential=None, **fields)

    assert Upstream.objects.exists() is False


def test_shipped_tiers() -> None:
    import_catalog()

    plane = plane_snapshot()

    basic, pro = plane.tiers["basic"], plane.tiers["pro"]
    assert basic.limits == Limits(
        requests_per_minute=50, tokens_per_minute=100_000, concurrency=10, burst_seconds=60
    )
    assert pro.limits == Limits(
        requests_per_minute=200, tokens_per_minute=400_000, concurrency=40, burst_seconds=60
    )
    assert basic.output_reserve_max == 4_096
    assert "enterprise" in plane.tiers


def test_terms_are_tier_overrides_book_and_discount() -> None:
    import_catalog()
    tenant = make_tenant()
    set_tier(tenant=tenant, tier="pro", actor=ACTOR, reason="upgrade")
    set_overrides(
        tenant=tenant,
        limits=Limits(concurrency=7),
        group_limits={"opus-5": Limits(requests_per_minute=3)},
        actor=ACTOR,
        reason="contract",
    )
    set_prices(tenant=tenant, discount_bp=250, actor=ACTOR, reason="contract")

    with platform_scope("tests"):
        terms = terms_of([tenant])[tenant]

    assert terms.tier == "pro"
    assert terms.overrides == Limits(concurrency=7)
    assert terms.group_overrides == {"opus-5": Limits(requests_per_minute=3)}
    assert (terms.discount_bp, terms.book) == (250, PriceBook.objects.get().pk)
    assert (terms.mode, terms.is_in_good_standing) == ("prepaid", False)


def test_a_tenant_without_a_subscription_has_the_smallest_tier_and_list_prices() -> None:
    import_catalog()
    tenant = make_tenant()

    with platform_scope("tests"):
        terms = terms_of([tenant])[tenant]

    assert (terms.tier, terms.book) == ("basic", PriceBook.objects.get(name="list").pk)


def test_limits_of_a_model_group_are_part_of_the_tier() -> None:
    import_catalog()

    set_group_limits(tier="basic", limit_group="opus-5", limits=Limits(tokens_per_minute=9))

    limits = plane_snapshot().tiers["basic"].group_limits
    assert limits == {"opus-5": Limits(tokens_per_minute=9)}


def test_what_cannot_be_a_tier_is_refused() -> None:
    tenant = make_tenant()

    with pytest.raises(NotFound, match="no tier 'gold'"):
        set_tier(tenant=tenant, tier="gold", actor=ACTOR, reason="")
    with pytest.raises(InvalidInput, match="concurrency is at least 1, not 0"):
        set_overrides(tenant=tenant, limits=Limits(concurrency=0), actor=ACTOR, reason="")
    with pytest.raises(InvalidInput, match="10000 basis points, not 10001"):
        set_prices(tenant=tenant, discount_bp=10_001, actor=ACTOR, reason="")
    with pytest.raises(NotFound, match="no price book 'none'"):
        set_prices(tenant=tenant, book="none", actor=ACTOR, reason="")

    with platform_scope("tests"):
        assert Subscription.objects.exists() is False


def test_a_tenant_sees_its_own_subscription_alone() -> None:
    alice, mallory = make_tenant("alice"), make_tenant("mallory")
    for tenant in (alice, mallory):
        set_tier(tenant=tenant, tier="pro", actor=ACTOR, reason="")

    with tenant_scope(mallory):
        owners = list(Subscription.objects.values_list("tenant_id", flat=True))

    assert owners == [mallory]


def test_an_operators_change_of_a_tier_outlives_an_import() -> None:
    import_catalog()
    Tier.objects.filter(code="basic").update(concurrency=3)

    import_catalog()

    assert Tier.objects.get(code="basic").concurrency == 3


def test_a_tenants_word_on_clients_that_leave_is_in_its_terms() -> None:
    import_catalog()
    tenant = make_tenant()

    set_disconnect(
        tenant=tenant, on_disconnect="drain", drain_seconds=30, actor=ACTOR, reason="asked"
    )

    with platform_scope("test"):
        terms = terms_of([tenant])[tenant]
    assert (terms.on_disconnect, terms.drain_seconds) == ("drain", 30)


@pytest.mark.parametrize(
    "bad", [{"on_disconnect": "wait"}, {"on_disconnect": "drain", "drain_seconds": 0}]
)
def test_a_word_that_nobody_knows_changes_nothing(bad: dict[str, Any]) -> None:
    tenant = make_tenant()

    with pytest.raises(InvalidInput):
        set_disconnect(tenant=tenant, actor=ACTOR, reason="asked", **bad)

    with platform_scope("tests"):
        assert not Subscription.objects.exists()
