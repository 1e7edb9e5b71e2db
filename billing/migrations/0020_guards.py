"""What an operator switches on for a tier or for the platform."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0009_switches")]

    operations = [
        migrations.AddField(
            model_name="tier",
            name="allowed_features",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddField(
            model_name="platformstate",
            name="allowed_features",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddField(
            model_name="platformstate",
            name="is_claude_only",
            field=models.BooleanField(default=False),
        ),
    ]
