"""The child process of a demo mesh: its applications, its traffic and its control plane's sockets."""
