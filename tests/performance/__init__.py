"""How long meshscope takes, and how much memory, for the input of a large mesh."""
