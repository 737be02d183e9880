"""The reference models: what is integrated out, exactness, and one density for all spellings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import log_density

import autmarg
from examples.models import REFERENCE, VARIANTS, Reference
from tests.support.lanes import lanes

MODELS = {**REFERENCE, **VARIANTS}
LARGE = {"insteval", "insteval_scales", "eeg"}
"""Models with too many columns for a dense Hessian."""

Arguments = Callable[[Reference], tuple[Any, ...]]


# Six models of crossed subjects and items differ in names and priors only: one of them, and one of
# each other structure, is in the default lane.
STRUCTURES = (
    "dutch", "dutch_independent", "electric", "fibrosis", "gg05", "grouseticks", "pupil", "stroop"
)  # fmt: skip
SPELLINGS = [(name, spelling) for name, model in MODELS.items() for spelling in model.spellings]
FIRST = [(name, next(iter(model.spellings))) for name, model in MODELS.items()]
OTHERS = [pair for pair in SPELLINGS if pair not in FIRST]
"""All but the first spelling of each model."""
QUICK = [pair for pair in FIRST if pair[0] in STRUCTURES]
INTEGRALS, VERIFIED = ("fibrosis",), ("electric",)  # those that compile quickly
LAST = [(name, list(MODELS[name].spellings)[-1]) for name in STRUCTURES]


def prior_draw(reference: Reference, spelling: str, args: tuple, seed: int) -> tuple[dict, dict]:
    """One prior draw: (values of the kept sites, values of those to be integrated out)."""
    program = handlers.seed(reference.spellings[spelling], seed)
    trace = handlers.trace(program).get_trace(*args)
    draw = {
        name: site["value"]
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    gone = reference.integrated[spelling]
    return (
        {name: value for name, value in draw.items() if name not in gone},
        {name: value for name, value in draw.items() if name in gone},
    )


def marginal_density(reference: Reference, spelling: str, args: tuple, kept: list[dict]) -> Any:
    """log p(y, kept) of one spelling, on the first spelling's scale of y, for each kept draw."""
    marg = autmarg.transform(reference.spellings[spelling], marginalize="all")
    rename = reference.keep_map.get(spelling, dict)
    log_jacobian = reference.log_jacobian.get(spelling, lambda *_: 0.0)(*args)
    density = jax.jit(lambda values: log_density(marg, args, {}, values)[0])
    return np.array([float(density(rename(values)) + log_jacobian) for values in kept])


_first_density: dict[str, tuple[list[dict], np.ndarray]] = {}


def first_density(reference: Reference, args: tuple) -> tuple[list[dict], np.ndarray]:
    """Three draws of the kept sites, and the first spelling's marginal density there."""
    if reference.name not in _first_density:
        first = next(iter(reference.spellings))
        kept = [prior_draw(reference, first, args, seed)[0] for seed in range(3)]
        _first_density[reference.name] = kept, marginal_density(reference, first, args, kept)
    return _first_density[reference.name]


@pytest.mark.parametrize(("name", "spelling"), lanes(SPELLINGS, QUICK[::2] + LAST))
def test_everything_gaussian_is_integrated_out(
    name: str, spelling: str, arguments: Arguments
) -> None:
    """The plan integrates exactly the registered sites and keeps all other latents."""
    reference = MODELS[name]
    args = arguments(reference)
    plan = autmarg.transform(reference.spellings[spelling], marginalize="all").plan(*args)
    kept, gone = prior_draw(reference, spelling, args, seed=0)
    assert isinstance(plan.integrated, tuple)
    assert isinstance(plan.kept, tuple)
    assert set(plan.integrated) == set(gone) == reference.integrated[spelling]
    assert set(plan.kept) == set(kept)


@pytest.mark.parametrize(("name", "spelling"), lanes(OTHERS, LAST[1::2]))
def test_spellings_have_one_marginal_density(
    name: str, spelling: str, arguments: Arguments
) -> None:
    """However the model is written, log p(y, kept) is the same number."""
    reference = MODELS[name]
    args = arguments(reference)
    kept, expected = first_density(reference, args)
    found = marginal_density(reference, spelling, args, kept)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name", lanes([n for n in MODELS if n not in LARGE], INTEGRALS))
def test_marginal_density_is_a_gaussian_integral(name: str, arguments: Arguments) -> None:
    """The marginal is log p(y, x) - log N(x; x̂, H⁻¹) at any x, H from the user's own program.

    The joint density is quadratic in the integrated values x: with gradient g and Hessian -H at
    zero, log ∫ exp = f(0) + gᵀH⁻¹g / 2 + (n log 2π - log|H|) / 2.
    """
    reference = MODELS[name]
    args = arguments(reference)
    first, model = next(iter(reference.spellings.items()))
    kept, gone = prior_draw(reference, first, args, seed=0)
    zero, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, gone))

    def joint(x: jax.Array) -> jax.Array:
        return log_density(model, args, {}, {**kept, **unravel(x)})[0]

    value, gradient = jax.value_and_grad(joint)(zero)
    L = np.linalg.cholesky(-np.asarray(jax.jit(jax.hessian(joint))(zero)))
    ξ = np.linalg.solve(L, np.asarray(gradient))
    log_volume = len(zero) / 2 * np.log(2 * np.pi) - np.log(np.diag(L)).sum()
    expected = float(value) + ξ @ ξ / 2 + log_volume
    found = marginal_density(reference, first, args, [kept])
    np.testing.assert_allclose(found, [expected], rtol=1e-8)


@pytest.mark.parametrize("name", lanes(MODELS, VERIFIED))
def test_verify_finds_nothing(name: str, arguments: Arguments) -> None:
    """The exactness identity holds for the spelling that most users would write."""
    reference = MODELS[name]
    points = 3 if name in LARGE else 20
    report = autmarg.verify(
        reference.first, *arguments(reference), points=points, seed=0, marginalize="all"
    )
    assert report is not None
