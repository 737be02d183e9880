"""Sampling: draws of the posterior where few dimensions are left, and NUTS where many are."""
