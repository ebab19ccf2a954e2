"""Envoy's own semantics, pure: what its admin answers mean and what it would decide."""
