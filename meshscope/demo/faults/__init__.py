"""The faults that the demo mesh can have: one a cause, named by the cause's id, combinable."""

from meshscope.demo.faults.registry import Entry, Fault, UnknownFaultError, catalogue, find

__all__ = ["Entry", "Fault", "UnknownFaultError", "catalogue", "find"]
