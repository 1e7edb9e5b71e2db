"""What operators changed by hand, so that an import of the catalogue leaves it alone."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0020_guards")]

    operations = [
        migrations.AddField("pricebook", "own_models", models.JSONField(default=list, blank=True)),
        migrations.AddField("modelalias", "is_own", models.BooleanField(default=False)),
    ]
