"""Finds what is broken in a service mesh, why, how it knows, and how to fix it."""

from importlib.metadata import version

__version__ = version("meshscope")
