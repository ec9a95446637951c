"""Training networks: one loop, the proxy on top of it."""
