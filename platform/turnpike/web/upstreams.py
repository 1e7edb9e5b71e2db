"""Whether a model or the simulator answers: every page says so."""

from billing.models import Upstream


def is_simulated() -> bool:
    """Whether no real upstream is in use."""
    return not Upstream.objects.filter(is_enabled=True, is_simulator=False).exists()
