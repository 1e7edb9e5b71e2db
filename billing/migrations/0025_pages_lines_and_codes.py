"""Codes that were made together, and indexes by which a line of an invoice finds its requests.

A line is one model, tier, price version and discount of a period: the first index holds its
requests in the order in which they are shown, and begins with the period, as the one did that it
takes the place of. What few requests have, cached prompts and searches, has indexes of its own.
"""

from django.db import migrations, models

LINE = "period_id, model, tier, price_set_id, discount_bp, is_late, request_id DESC"
CACHED = "cache_write_5m_nano <> 0 OR cache_write_1h_nano <> 0 OR cache_read_nano <> 0"
INDEXES = f"""
CREATE INDEX usage_event_of_line ON billing_usage_event ({LINE});
CREATE INDEX usage_event_of_cached ON billing_usage_event ({LINE}) WHERE {CACHED};
CREATE INDEX usage_event_of_search ON billing_usage_event ({LINE}) WHERE web_search_nano <> 0;
DROP INDEX usage_event_of_period;
"""
UNDO = """
CREATE INDEX usage_event_of_period ON billing_usage_event (period_id);
DROP INDEX usage_event_of_line, usage_event_of_cached, usage_event_of_search;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0022_alerts_differences")]

    operations = [
        migrations.AddField(
            "redemptioncode",
            "batch",
            models.UUIDField(null=True, blank=True, db_index=True),
        ),
        migrations.AddIndex(
            "ratingdifference",
            models.Index(fields=["period", "-request_id"], name="rating_difference_of_period"),
        ),
        migrations.AddIndex(
            "ratingdifference",
            models.Index(fields=["credit_note", "-request_id"], name="rating_difference_of_note"),
        ),
        migrations.RunSQL(INDEXES, UNDO),
    ]
