"""Renders what commands found: text, JSON, YAML and Markdown. Computes nothing."""
