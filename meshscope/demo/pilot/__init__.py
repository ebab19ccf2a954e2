"""A small stand-in for istiod: translates the desired mesh into each proxy's Envoy configuration.

It knows what the demo's faults need and no more; names, order and metadata are Istio's.
"""

from meshscope.demo.pilot.proxy import ProxyConfig, proxy_config

__all__ = ["ProxyConfig", "proxy_config"]
