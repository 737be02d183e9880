"""What each level says for itself: estimates of effects without pooling.

The prior of the effects is replaced by one a thousand times as wide as they are, everything else
stays at posterior draws, and the exact conditional mean is averaged over these draws: least
squares of each level's rows on its effects, given the noise and all other sites.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from autmarg.backend.recovery import Recovery
from autmarg.errors import RequestError
from autmarg.passes.default import passes_for
from autmarg.plan.select import Request
from autmarg.posterior.inference_data import WholeFit

if TYPE_CHECKING:
    from numpyro.distributions import Distribution

_DRAWS = 100  # at which everything else is held
_WIDE = 1e3  # widths of the effects that the substitute prior has
_OWN = 0.1  # share of that prior's scale above which an estimate is the prior's, not the data's


def unpooled(fit: WholeFit, site: str) -> np.ndarray:
    """Estimates of a site's elements without pooling.

    Args:
        fit: draws of all sites.
        site: a real-valued latent that can be integrated out as Gaussian.

    Returns:
        Estimates of the site's shape; NaN where the rows of a level do not determine it.

    Raises:
        RequestError: the site cannot be integrated out.
    """
    draws = fit.posterior[site]
    wide = _WIDE * float(np.abs(draws - draws.mean()).max() + np.abs(draws.mean()) + 1e-300)

    def substitute(present: Distribution) -> Distribution:
        prior = dist.Normal(jnp.zeros(present.shape()), wide)
        return prior.to_event(present.event_dim)

    try:
        program = fit.program.with_distribution(site, substitute)
        rewritten = passes_for(Request(marginalize=(site,), reparameterize="off")).run(program)
    except RequestError as error:
        raise RequestError(
            f"there is no exact estimate of '{site}' without pooling, since it cannot be "
            f"integrated out: {error}"
        ) from error
    count = draws.shape[0] * draws.shape[1]
    chosen = np.linspace(0, count - 1, min(_DRAWS, count)).astype(int)
    others = {
        node.name: fit.posterior[node.name].reshape(count, *node.shape)[chosen]
        for node in fit.program.latents
        if node.name != site
    }
    found = Recovery(rewritten).run(
        jax.random.key(0), others, {}, draws=chosen.shape, moments=True, batch_size=None,
        progress=None,
    )[site]  # fmt: skip
    mean, variance = np.asarray(found["mean"]).mean(0), np.asarray(found["var"]).mean(0)
    return np.where(np.sqrt(variance) < _OWN * wide, mean, np.nan)
