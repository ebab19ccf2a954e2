"""One rule, one file: a thing that can be wrong, how it shows, why, and how to fix it."""
