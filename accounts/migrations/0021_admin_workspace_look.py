"""A color and tags of workspaces, which programs of the Admin API set."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0020_tenant_playground'),
    ]

    operations = [
        migrations.AddField(
            model_name='workspace',
            name='display_color',
            field=models.CharField(blank=True, db_default='', default='', max_length=7),
        ),
        migrations.AddField(
            model_name='workspace',
            name='tags',
            field=models.JSONField(blank=True, db_default={}, default=dict),
        ),
    ]
