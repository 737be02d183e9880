"""What the models of strangers share: their table, a short word for a normal site, their check."""

from __future__ import annotations

import numpyro
import numpyro.distributions as dist

import autmarg


def registers(cases):
    """A decorator that puts a model among the cases, with the sites that must be integrated out."""

    def goes(*sites):
        def register(model):
            cases[model.__name__] = (model, frozenset(sites))
            return model

        return register

    return goes


def normal(name, loc=0.0, sd=1.0, shape=()):
    """A normal site of that shape, one event."""
    return numpyro.sample(name, dist.Normal(loc, sd).expand(shape).to_event(len(shape)))


def check(model, integrated):
    """Exactly these sites can be integrated out, and the identity holds."""
    marg = autmarg.transform(model, marginalize="all")
    assert set(marg.plan().integrated) == integrated
    autmarg.verify(marg, points=2, quiet=True)
