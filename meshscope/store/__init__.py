"""Keeps what was read: bundles."""
