"""Densities of many rows, of which equal elements are evaluated once."""
