"""A key for each workspace's playground, derived from a generation number."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0005_lifecycle'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='apikey',
            name='apikey_kind_is_known',
        ),
        migrations.AddField(
            model_name='apikey',
            name='generation',
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('generation__isnull', True), ('kind__in', ['api', 'management'])), models.Q(('generation__isnull', False), ('kind', 'playground')), _connector='OR'), name='apikey_kind_is_known'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.UniqueConstraint(fields=('workspace', 'generation'), name='apikey_one_per_generation'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.UniqueConstraint(condition=models.Q(('kind', 'playground'), ('revoked_at__isnull', True)), fields=('workspace',), name='apikey_one_playground_key_in_use'),
        ),
    ]
