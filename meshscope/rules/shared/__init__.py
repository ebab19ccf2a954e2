"""What several rules have in common: how kinds of failure show, and what is said of them."""
