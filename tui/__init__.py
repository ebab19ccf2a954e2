"""The Textual application on the same engine; importable as meshscope.tui."""
