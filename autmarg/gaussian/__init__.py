"""Gaussian numerics: affine forms, quadratic forms, elimination stages. Knows no IR."""
