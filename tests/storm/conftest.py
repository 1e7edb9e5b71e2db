"""The data plane in this process, for storms that break what is behind it."""

from tests.gateway.conftest import door, gateway, proxy_config, simulator

__all__ = ["door", "gateway", "proxy_config", "simulator"]
