"""Which sites go, in which order, with which stage, at what cost."""
