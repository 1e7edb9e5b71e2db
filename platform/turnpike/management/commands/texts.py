"""Brings the catalogues of translations up to date and compiles them."""

from typing import Any

from django.core.management.base import BaseCommand

from turnpike.web import catalogs


class Command(BaseCommand):
    """Run after a text of a page was changed; says what is left to translate."""

    help = "Find the texts of pages, update the catalogues of translations and compile them."
    requires_system_checks = ()

    def handle(self, *_arguments: Any, **_options: Any) -> None:
        """Write every catalogue anew, keeping what is translated."""
        for app in catalogs.APPS:
            for language in catalogs.LANGUAGES:
                catalog = catalogs.update(app, language)
                for text in catalogs.missing(catalog, catalog):
                    self.stdout.write(f"{app.name} {language}: {text}")
