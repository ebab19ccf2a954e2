"""Compares meshscope's reading of Envoy's configuration with what a real Envoy does."""
