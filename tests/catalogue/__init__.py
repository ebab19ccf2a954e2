"""Every cause, made with real Envoys and diagnosed under every condition a user may meet."""
