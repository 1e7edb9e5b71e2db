"""compare_costs: what attempts cost by an upstream's cost book, against its cost report."""

from datetime import datetime

from billing.models.upstreams import Upstream, UpstreamCredential
from billing.services.findings import Difference
from billing.services.report_client import COST_CURRENCY, Cost, read_costs
from billing.services.upstream_attempts import sum_attempts
from turnpike.kernel import money

COSTS = "costs"
# A report rounds each line to a hundred-thousandth of a cent, a book each of an attempt's six
# components to a nano: what differs by less is rounding.
LINE_NANO_MAX = 100
ATTEMPT_NANO_MAX = 6
# By day and model: what attempts cost, how many have a cost, how many were billed.
Ours = dict[tuple[str, str], tuple[int, int, int]]
_COLUMNS = "coalesce(sum(attempt.cost_nano), 0)::bigint, count(attempt.cost_nano), count(*)"


def compare_costs(row: UpstreamCredential, *, since: datetime, until: datetime) -> list[Difference]:
    """Where an upstream has a cost book in dollars: its costs by UTC day and model, compared.

    Days of which no attempt has a cost were before the book: they are left out. Raises
    REPORT_ERRORS where there is no report.
    """
    book = row.upstream.cost_book
    if book is None or book.currency != COST_CURRENCY:
        return []
    reported = read_costs(row, since=since, until=until)
    ours = _ours(row.upstream, since=since, until=until)
    days = {day for (day, _), (_, priced, _) in ours.items() if priced}
    found = []
    for place in sorted(ours.keys() | reported.keys()):
        here, there = ours.get(place, (0, 0, 0)), reported.get(place, Cost())
        allowed = there.lines * LINE_NANO_MAX + here[2] * ATTEMPT_NANO_MAX
        if place[0] in days and abs(here[0] - there.nano) > allowed:
            found.append(_difference(row.upstream.name, place, here, there))
    return found


def _difference(
    name: str, place: tuple[str, str], here: tuple[int, int, int], there: Cost
) -> Difference:
    day, model = place
    nano, priced, billed = here
    ours, reported = money.format_amount(nano), money.format_amount(there.nano)
    return Difference(
        cause=(name, COSTS, day, model),
        evidence=(
            ("upstream", name),
            ("day", day),
            ("model", model),
            ("kind", COSTS),
            ("ours", ours),
            ("reported", reported),
            ("currency", COST_CURRENCY),
            ("attempts", str(billed)),
            ("without_price", str(billed - priced)),
        ),
        text=f"{name}, {day}, {model}, {COSTS}: {ours} {COST_CURRENCY}, says {reported}",
    )


def _ours(upstream: Upstream, *, since: datetime, until: datetime) -> Ours:
    rows = sum_attempts(_COLUMNS, upstream=upstream.pk, since=since, until=until)
    return {(day, model): (nano, priced, billed) for day, model, nano, priced, billed in rows}
