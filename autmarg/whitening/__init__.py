"""Latents under a non-Gaussian likelihood, whitened by a Gaussian surrogate; see ``density.py``."""
