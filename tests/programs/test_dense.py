"""Marginal densities against a dense Gaussian built by brute force from the program: a table."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density

import autmarg
from tests.analysis import test_families
from tests.support import chains, programs
from tests.support.dense import marginal, prior_draw
from tests.support.lanes import lanes

CASES = {
    **{
        f"programs: {name}": (programs.CASES[name].model, (programs.Y,))
        for name in (
            "radon",
            "kept_child",
            "two_observed_sites",
            "multivariate_likelihood",
            "masked_rows",
            "missing_covariate",
            "masked_vectors_that_nothing_reads",
            "measurement_error",
            "transformed_response",
        )
    },
    **{
        f"chains: {name}": (chains.CHAINS[name].model, (chains.CHAINS[name].data,))
        for name in (
            "autoregressive",
            "panel",
            "vector_autoregressive",
            "level_and_season",
            "random_walks_in_a_plate",
            "state_space",
            "cumulative_sum",
            "noncentred_autoregression",
        )
    },
    **{
        f"priors: {name}": (
            test_families.latents(*test_families.PRIORS[name])[0],
            (test_families.SEEN,),
        )
        for name in ("CAR", "LowRank, batched", "Matrix, batched", "ZeroSum", "Circulant", "affine")
    },
}

pytestmark = pytest.mark.usefixtures("quick_compilation")


QUICK = (
    "programs: multivariate_likelihood",
    "programs: masked_rows",
    "programs: missing_covariate",
    "programs: transformed_response",
    "chains: noncentred_autoregression",
    "priors: ZeroSum",
)


@pytest.mark.parametrize("name", lanes(CASES, QUICK))
def test_marginal_is_the_dense_one(name):
    model, data = CASES[name]
    marg = autmarg.transform(model)
    plan = marg.plan(*data)
    kept = prior_draw(model, plan.kept, *data)
    found = jax.jit(lambda kept: log_density(marg, data, {}, kept)[0])(kept)
    np.testing.assert_allclose(found, marginal(model, plan.integrated, kept, *data), rtol=1e-9)
