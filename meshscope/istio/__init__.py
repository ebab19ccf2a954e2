"""Istio's own semantics, pure: names inside Envoy, Kubernetes objects and what they make a proxy do."""
