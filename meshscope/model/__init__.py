"""The nouns of a mesh, in one vocabulary for Istio and Linkerd; no I/O."""
