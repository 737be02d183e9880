"""Effects under a non-Gaussian likelihood, integrated out numerically; see ``density.py``."""
