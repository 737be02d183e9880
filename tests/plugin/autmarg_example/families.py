"""A distribution that autmarg does not know: a normal one, shifted by one."""

from __future__ import annotations

import numpyro.distributions as dist


class Shifted(dist.Normal):
    """Normal(loc + 1, scale)."""

    def log_prob(self, value):
        return super().log_prob(value - 1.0)

    def sample(self, key, sample_shape=()):
        return super().sample(key, sample_shape) + 1.0
