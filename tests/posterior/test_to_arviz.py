"""``to_arviz``: the source's sites with names of dimensions and levels, saved and read back."""

from __future__ import annotations

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC, NUTS

import autmarg

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore::FutureWarning:arviz"),
    pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto"),
]
az = pytest.importorskip("arviz")

KEY = jax.random.key(1)
RNG = np.random.default_rng(0)
PUPIL = pd.Categorical(np.array(["cleo", "anna", "bert"])[np.arange(8) % 3])
X = RNG.normal(size=8)
Y = RNG.normal(size=8)
DRAWS = {"tau": np.exp(RNG.normal(size=(2, 30))), "sigma": np.exp(RNG.normal(size=(2, 30)))}


def pupils(x, pupil, y=None):
    """Effects in a plate, with a name that the site does not share; values beside them."""
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("pupils", len(pupil.categories)):
        u = numpyro.sample("u", dist.Normal(0, tau))
        numpyro.deterministic("inside", u**2)
    numpyro.deterministic("outside", 2 * u[:, None] + np.ones(2))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(u[np.asarray(pupil.codes)] + x, sigma), obs=y)


ARGS = (X, PUPIL, Y)
MARG = autmarg.transform(pupils, marginalize=["u"])


def groups(found):
    """Datasets by group, of either container."""
    if hasattr(found, "to_dict") and hasattr(found, "children"):
        return {name: node.to_dataset() for name, node in found.children.items()}
    return {name: found[name] for name in found.groups()}


def test_sites_dimensions_and_levels():
    dims = {"outside": ["pupils", "two"]}
    found = groups(MARG.to_arviz(DRAWS, *ARGS, dims=dims, log_likelihood=None))
    posterior = found["posterior"]
    assert list(posterior.data_vars) == ["tau", "sigma", "u", "inside", "outside"]
    assert posterior["u"].dims == posterior["inside"].dims == ("chain", "draw", "pupils")
    assert posterior["outside"].dims == ("chain", "draw", "pupils", "two")
    assert list(posterior["pupils"].values) == ["anna", "bert", "cleo"]
    np.testing.assert_array_equal(posterior["tau"], DRAWS["tau"])
    np.testing.assert_allclose(posterior["inside"], posterior["u"] ** 2)
    assert posterior.attrs["integrated_out"] == "u"
    assert found["observed_data"]["y"].dims == ("rows",)
    np.testing.assert_array_equal(found["observed_data"]["y"], Y)
    assert set(found["constant_data"].data_vars) == {"x", "pupil"}
    np.testing.assert_array_equal(found["constant_data"]["pupil"], np.asarray(PUPIL))


def test_a_deterministic_site_outside_plates_has_the_dimension_it_is_computed_from():
    found = MARG.to_arviz(DRAWS, *ARGS, log_likelihood=None)
    assert groups(found)["posterior"]["outside"].dims[2:] == ("pupils", "outside_dim_1")


def test_a_deterministic_site_of_an_identity_matrix():
    """An equation that reads nothing leads back to nothing."""

    def near(y=None):
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        with numpyro.plate("places", 3):
            u = numpyro.sample("u", dist.Normal(0, 1))
        w = numpyro.deterministic("w", (tau * jnp.ones((3, 3)) + jnp.eye(3)) * u)
        numpyro.sample("y", dist.Normal(w[0], 1.0), obs=y)

    marg = autmarg.transform(near, marginalize=["u"])
    fit = marg.to_arviz({"tau": DRAWS["tau"]}, np.zeros(3), log_likelihood=None)
    assert groups(fit)["posterior"]["w"].dims[2:] == ("w_dim_0", "places")


def test_one_form_of_a_kept_site_is_as_good_as_another():
    """No standard noise is among the sites; the two forms agree."""
    z = RNG.normal(size=(2, 30, 3))
    kept = autmarg.transform(pupils, keep=["u"], reparameterize="noncentred")
    assert kept.plan(*ARGS).noncentred == ("u",)
    found = groups(kept.to_arviz({**DRAWS, "u_decentered": z}, *ARGS, log_likelihood=None))
    assert set(found["posterior"].data_vars) == {"tau", "sigma", "u", "inside", "outside"}
    np.testing.assert_allclose(found["posterior"]["u"], DRAWS["tau"][..., None] * z)


def test_draws_of_all_sites_are_taken_as_they_are():
    drawn = MARG.recover(KEY, DRAWS, *ARGS)
    found = groups(MARG.to_arviz(drawn, *ARGS, log_likelihood=None))["posterior"]
    np.testing.assert_array_equal(found["u"], drawn["u"])
    latents = {name: drawn[name][0] for name in ("tau", "sigma", "u")}
    alone = groups(MARG.to_arviz(latents, *ARGS, log_likelihood=None))["posterior"]
    assert alone.sizes["chain"] == 1
    np.testing.assert_allclose(alone["outside"][0], drawn["outside"][0])


def test_loo_of_conditional_log_likelihoods():
    found = MARG.to_arviz(DRAWS, *ARGS, log_likelihood="conditional")
    values = groups(found)["log_likelihood"]
    assert values["y"].dims == ("chain", "draw", "rows")
    assert values.attrs["which"].startswith("conditional: log p(y_i | effects")
    u = groups(found)["posterior"]["u"].values[..., PUPIL.codes]
    expected = dist.Normal(u + X, DRAWS["sigma"][..., None]).log_prob(Y)
    np.testing.assert_allclose(values["y"], expected, rtol=1e-10)
    assert az.loo(found).n_data_points == 8


def test_loo_of_marginal_log_likelihoods_is_the_default():
    """The two estimate one number; the marginal values weight draws more evenly."""
    found = MARG.to_arviz(DRAWS, *ARGS)
    values = groups(found)["log_likelihood"]
    assert values.attrs["which"].startswith("marginal: log p(y_i | y_-i")
    expected = MARG.log_likelihood(DRAWS, *ARGS, which="marginal")["y"]
    np.testing.assert_allclose(values["y"], expected, rtol=1e-12)
    assert az.loo(found).n_data_points == 8


def test_where_nothing_is_integrated_out_log_likelihoods_are_conditional():
    draws = {**DRAWS, "u": RNG.normal(size=(2, 30, 3))}
    found = autmarg.transform(pupils, marginalize=[]).to_arviz(draws, *ARGS)
    assert groups(found)["log_likelihood"].attrs["which"].startswith("conditional")


def test_log_likelihoods_that_would_fill_the_memory_are_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("autmarg.posterior.inference_data._MOST", 10)
    with pytest.warns(UserWarning, match="60 draws of 8 rows") as seen:
        found = MARG.to_arviz(DRAWS, *ARGS)
    assert seen[0].filename == __file__ and "log_likelihood" not in groups(found)
    asked = MARG.to_arviz(DRAWS, *ARGS, log_likelihood="marginal")
    assert "log_likelihood" in groups(asked)


def test_data_drawn_anew():
    draws = {**DRAWS, "sigma": np.full((2, 30), 1e-9)}
    found = MARG.to_arviz(draws, *ARGS, posterior_predictive=True, prior=3, log_likelihood=None)
    found = groups(found)
    u = found["posterior"]["u"].values[..., PUPIL.codes]
    drawn = found["posterior_predictive"]["y"]
    np.testing.assert_allclose(drawn, u + X, atol=1e-6)
    assert drawn.dims == ("chain", "draw", "rows")
    assert found["prior"]["u"].shape == (1, 3, 3)
    prior = found["prior_predictive"]["y"]
    assert prior.shape == (1, 3, 8) and not np.isclose(prior, Y).any()


@pytest.mark.parametrize("own", [False, True])
def test_data_of_a_scan_drawn_anew(own):
    """Where its steps read earlier data, which are known then, they are left out, with a word."""

    def series(y):
        tau = numpyro.sample("tau", dist.HalfNormal(1))

        def step(last, seen):
            x = numpyro.sample("x", dist.Normal(last, tau))
            y = numpyro.sample("y", dist.Normal(x, 1e-9), obs=seen)
            return y if own else x, None

        scan(step, 0.0, y, length=8)

    draws = {"tau": DRAWS["tau"], "x": RNG.normal(size=(2, 30, 8))}
    found = groups(
        autmarg.transform(series, marginalize=[]).to_arviz(
            draws, Y, posterior_predictive=True, prior=3, log_likelihood=None
        )
    )
    if own:
        assert "own past" in found["prior"].attrs["left_out"]
        assert not {"posterior_predictive", "prior_predictive"} & set(found)
        return
    np.testing.assert_allclose(found["posterior_predictive"]["y"], draws["x"], atol=1e-6)
    np.testing.assert_allclose(found["prior_predictive"]["y"], found["prior"]["x"], atol=1e-6)


def nested(y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    with numpyro.plate("schools", 3, dim=-2), numpyro.plate("classes", 2, dim=-1):
        u = numpyro.sample("u", dist.Normal(0, tau).expand([3, 2, 4]).to_event(1))
    v = numpyro.sample("v", dist.Normal(0, tau).expand([5]))
    numpyro.sample("y", dist.Normal(u.sum(), 1.0), obs=y)
    numpyro.sample("z", dist.Normal(v[np.array([0, 4])], 1.0), obs=None if y is None else Y[:2])


def test_nested_plates_and_no_plates():
    marg = autmarg.transform(nested, marginalize="all")
    labels = {"schools": ["s", "t", "r"], "words": [f"w{k}" for k in range(5)]}
    found = marg.to_arviz(
        {"tau": np.ones(3)}, 1.0, coords=labels, dims={"v": ["words"]}, log_likelihood=None
    )
    posterior = groups(found)["posterior"]
    assert posterior["u"].dims == ("chain", "draw", "schools", "classes", "u_dim_2")
    assert posterior["v"].dims == ("chain", "draw", "words")
    assert posterior["u"].sel(schools="r", classes=1).shape == (1, 3, 4)
    assert posterior["v"].sel(words="w4").shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"coords": {"pupil": ["a", "b", "c"]}}, r"no dimension \(did you mean 'pupils'"),
        ({"coords": {"pupils": ["a", "b"]}}, "2 labels for 'pupils', which has 3"),
        ({"dims": {"w": ["a"]}}, "dims names 'w', which is no site"),
        ({"dims": {"u": ["a", "b"]}}, r"it has the shape \(3,\)"),
        ({"dims": {"u": ["tau"]}}, "the name of a site"),
        ({"dims": {"y": ["pupils"]}}, "'pupils' has 8 entries in 'y' and 3"),
        ({"log_likelihood": "loo"}, "expected 'auto'"),
    ],
)
def test_names_that_fit_nothing(options, words):
    with pytest.raises(autmarg.RequestError, match=words):
        MARG.to_arviz(DRAWS, *ARGS, **options)


def test_labels_need_a_proof():
    """Another column of as many categories, which the model does not index with, gives none."""

    def other(x, pupil, form, y=None):
        numpyro.deterministic("forms", 1.0 * np.asarray(form.codes))
        pupils(x, pupil, y)

    form = pd.Categorical(np.array(["i", "ii", "iii"])[np.arange(8) // 3])
    marg = autmarg.transform(other)
    found = groups(marg.to_arviz(DRAWS, X, PUPIL, form, Y, log_likelihood=None))
    assert list(found["posterior"]["pupils"].values) == ["anna", "bert", "cleo"]
    coded = pd.Categorical.from_codes(np.roll(PUPIL.codes, 1), ["d", "e", "f"])
    found = groups(marg.to_arviz(DRAWS, X, coded, PUPIL, Y, log_likelihood=None))
    assert list(found["posterior"]["pupils"].values) == ["d", "e", "f"]


@pytest.fixture(scope="module")
def fitted():
    """A run of five draws."""
    marg = autmarg.transform(pupils)
    mcmc = MCMC(NUTS(marg), num_warmup=2, num_samples=5, progress_bar=False)
    mcmc.run(KEY, *ARGS, extra_fields=("energy", "num_steps", "accept_prob"))
    return marg, mcmc


def test_an_mcmc_knows_its_arguments_and_its_steps(fitted):
    marg, mcmc = fitted
    found = groups(marg.to_arviz(mcmc, log_likelihood=None))
    assert {"diverging", "energy", "n_steps", "tree_depth"} <= set(found["sample_stats"])
    assert found["posterior"]["u"].shape == (1, 5, 3)
    with pytest.raises(autmarg.RequestError, match="other data or arguments than the run"):
        marg.to_arviz(mcmc, X, PUPIL, Y + 1)
    with pytest.raises(autmarg.RequestError, match="has not been run in this session"):
        marg.to_arviz(marg.recover(KEY, mcmc, *ARGS), X, PUPIL, Y + 1)


def test_arviz_does_not_take_a_joint_density_for_one_row(fitted):
    _, mcmc = fitted
    with pytest.warns(
        UserWarning, match=r"leaves \['y'\] of 'pupils' out .* marg.to_arviz"
    ) as seen:
        found = az.from_numpyro(mcmc, log_likelihood=True)
    assert "y" not in groups(found).get("log_likelihood", {})
    np.testing.assert_array_equal(groups(found)["observed_data"]["y"], Y)
    assert seen[-1].filename == __file__
    joint = numpyro.infer.log_likelihood(mcmc.sampler.model, mcmc.get_samples(), *ARGS)
    assert joint["y"].shape == (5,)


@pytest.mark.parametrize("as_path", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_saved_fit_stands_for_its_draws(tmp_path, as_path):
    pytest.importorskip("h5netcdf")
    fit, path = MARG.to_arviz(DRAWS, *ARGS, log_likelihood=None), tmp_path / "fit.nc"
    fit.to_netcdf(str(path))
    given = path if as_path else az.from_netcdf(str(path))
    found = MARG.recover(KEY, given, *ARGS, group_by_chain=True)
    expected = MARG.recover(KEY, DRAWS, *ARGS)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert MARG.recover(KEY, given, *ARGS)["u"].shape == (60, 3)
    again = groups(MARG.to_arviz(given, *ARGS, log_likelihood=None))
    np.testing.assert_array_equal(again["posterior"]["u"], groups(fit)["posterior"]["u"])
    assert list(again["posterior"]["pupils"].values) == ["anna", "bert", "cleo"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("no such file", "found no file there"), (__file__, "cannot read .* as a saved fit"),
        (3.0, "found float"), ([], "found list"),
    ],
)  # fmt: skip
def test_what_are_no_draws(given, words):
    with pytest.raises(autmarg.RequestError, match=words):
        MARG.recover(KEY, given, *ARGS)


@pytest.mark.slow
def test_a_fit_in_another_process(tmp_path):
    """A model by reference, draws from disk: the same recovery."""
    marg = autmarg.transform(nested, marginalize="all")
    draws, path = {"tau": np.array([[0.5, 1.0, 2.0]])}, tmp_path / "fit.nc"
    marg.to_arviz(draws, 1.0, log_likelihood=None).to_netcdf(str(path))
    expected = marg.recover(KEY, draws, 1.0)
    (tmp_path / "expected.pickle").write_bytes(
        pickle.dumps({name: np.asarray(value) for name, value in expected.items()})
    )
    program = f"""
import importlib.util, pickle, jax, numpy as np
jax.config.update("jax_enable_x64", True)
spec = importlib.util.spec_from_file_location("models", {__file__!r})
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)
found = models.autmarg.transform(models.nested, marginalize="all").recover(
    jax.random.key(1), {str(path)!r}, 1.0, group_by_chain=True
)
for name, value in pickle.load(open({str(tmp_path / "expected.pickle")!r}, "rb")).items():
    np.testing.assert_allclose(found[name], value, rtol=1e-9)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
