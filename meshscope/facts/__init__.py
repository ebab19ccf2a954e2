"""What is known of a mesh: proxies decoded when they are asked for, edges, and what was observed on them."""
