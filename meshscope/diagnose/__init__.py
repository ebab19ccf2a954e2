"""Runs the rules over the facts and ranks what they claim into findings, the root cause first."""
