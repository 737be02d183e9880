"""Messages for what users mistype: each names the option and what to type instead."""

from __future__ import annotations

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from tests.support.programs import GROUP, Y


def model(group, y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([5]))
    numpyro.sample("y", dist.Normal(u[group], 1), obs=y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": ["taw"]}, "'taw' is not a latent site of model 'model' (did you mean 'tau'?)"),
        ({"marginalize": ["U"]}, "(did you mean 'u'?)"),
        ({"reparameterize": ["tauu"]}, "(did you mean 'tau'?)"),
        ({"keep": None}, "keep=None: expected a list of site names"),
        ({"marginalize": [1]}, "marginalize=[1]: expected a list of site names"),
        ({"marginalize": "u"}, "(did you mean ['u']?)"),
        ({"reparameterize": "noncentered"}, "(did you mean 'noncentred'?)"),
    ],
)
def test_a_misspelt_request(options, words):
    with pytest.raises(autmarg.RequestError) as caught:
        autmarg.transform(model, **options).plan(GROUP, Y)
    assert words in str(caught.value)


def test_codes_that_start_at_one():
    with pytest.raises(autmarg.ModelError, match="These start at 1: subtract 1"):
        autmarg.transform(model).plan(GROUP + 1, Y)
    last = GROUP.max() == GROUP  # (which may as well be one level too many)
    with pytest.raises(autmarg.ModelError, match="If they count from 1, subtract 1"):
        autmarg.transform(model).plan(GROUP[last] + 1, Y[last])


def test_draws_under_a_misspelt_name():
    with pytest.raises(autmarg.RequestError, match=r"sampled site 'tau'.*did you mean 'taus'"):
        autmarg.transform(model).recover(None, {"taus": np.ones(3)}, GROUP, Y)
