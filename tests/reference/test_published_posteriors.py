"""Posteriors of whitened models against published figures."""

from __future__ import annotations

import numpy as np
import pytest

from examples.benchmarks.agreement import BOUND
from examples.models.posteriors import gp_pois_regr
from examples.published import Figure
from examples.references import Case, compared, transformed

# Mean, its MCSE, sd and effective sample size from the summary statistics of posteriordb's
# gp_pois_regr-gp_pois_regr (github.com/stan-dev/posteriordb): 10,000 draws of Stan.
GP_POIS_REGR = {
    "rho": Figure(5.6665, 0.0068, 0.6790, 10054),
    "alpha": Figure(2.9213, 0.0079, 0.7928, 10023),
    "f[0]": Figure(3.6357, 0.0015, 0.1521, 10249),
    "f[1]": Figure(3.6886, 0.0013, 0.1263, 9921),
    "f[2]": Figure(3.2547, 0.0014, 0.1432, 9942),
    "f[3]": Figure(2.4092, 0.0020, 0.1969, 10081),
    "f[4]": Figure(1.5615, 0.0024, 0.2469, 10272),
    "f[5]": Figure(1.2953, 0.0027, 0.2662, 9977),
    "f[6]": Figure(1.9312, 0.0023, 0.2246, 9955),
    "f[7]": Figure(3.1796, 0.0014, 0.1439, 10000),
    "f[8]": Figure(4.2529, 0.0010, 0.0961, 9834),
    "f[9]": Figure(4.4151, 0.0009, 0.0916, 9802),
    "f[10]": Figure(3.5068, 0.0016, 0.1631, 9963),
}
COUNTS = np.array([40, 37, 29, 12, 4, 3, 9, 19, 77, 82, 33])


@pytest.mark.slow
def test_whitened_process_has_the_published_posterior() -> None:
    """Means and log sds of a Gaussian process under Poisson counts, in float64."""
    args = (np.arange(-10.0, 12.0, 2.0), COUNTS)
    case = Case(gp_pois_regr, lambda _: args)
    row = compared(transformed(case, "whiten", args, seed=0, draws=2000), GP_POIS_REGR)
    print(row)
    assert row.least >= 2000
    assert max(row.mean[0], row.log_sd[0]) < BOUND


def test_a_difference_is_seen() -> None:
    """Figures that are off by five MCSE are beyond the bound; scalars of no draws are an error."""
    rng = np.random.default_rng(0)
    draws = {"x": rng.normal(size=(4, 1000)), "y": rng.normal(size=(4, 1000))}
    error = 10_000**-0.5
    right = {name: Figure(0.0, error, 1.0, 10_000.0) for name in draws}
    assert max(compared(draws, right).mean[0], compared(draws, right).log_sd[0]) < BOUND
    shifted = {**right, "y": Figure(6 * np.hypot(error, 4000**-0.5), error, 1.0, 10_000.0)}
    z, at = compared(draws, shifted).mean
    assert (z > 4, at) == (True, "y")
    with pytest.raises(ValueError, match="the reference has z"):
        compared(draws, {**right, "z": right["x"]})
