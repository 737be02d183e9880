"""Columns of pandas, polars and pyarrow: numeric ones are arrays, others are explained."""

from __future__ import annotations

import collections
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import autmarg
from autmarg.trace.columns import as_array

pytestmark = pytest.mark.usefixtures("quick_compilation")

G = np.array([0, 1, 2, 0, 1, 2])
X = np.linspace(-1, 1, 6)
Y = np.array([0.3, -1.0, 2.0, 0.5, -0.2, 1.0])
TWO = collections.namedtuple("TWO", "x y")


def model(g, x, y=None):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    b = numpyro.sample("b", dist.Normal(0, 1))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([3]))
    numpyro.sample("y", dist.Normal(u[g] + b * x, 0.7), obs=y)


def density(model, *args, **kwargs):
    return float(log_density(model, args, kwargs, {"tau": jnp.asarray(0.8)})[0])


@functools.cache
def expected():
    return density(autmarg.transform(model), G, X, Y)


def pandas(values, dtype=None):
    return pytest.importorskip("pandas").Series(values, dtype=dtype)


def polars(values, dtype=None):
    return pytest.importorskip("polars").Series(values)


def arrow(values, dtype=None):
    return pytest.importorskip("pyarrow").array(values)


def chunked(values, dtype=None):
    return pytest.importorskip("pyarrow").chunked_array([values[:2], values[2:]])


def nullable(values, dtype=None):
    kind = "Int64" if np.asarray(values).dtype.kind == "i" else "Float64"
    return pytest.importorskip("pandas").Series(values, dtype=kind)


def index(values, dtype=None):
    return pytest.importorskip("pandas").Index(values)


def extension(values, dtype=None):
    return nullable(values).array


def out_of_order(values, dtype=None):
    return pytest.importorskip("pandas").Series(values, index=[5, 3, 1, 0, 2, 4])


KINDS = [pandas, polars, arrow, chunked, nullable, index, extension, out_of_order]


@pytest.mark.parametrize("column", KINDS)
def test_numeric_columns_are_arrays(column):
    marg = autmarg.transform(model)
    args = (column(G), column(X), column(Y))
    assert density(marg, *args) == pytest.approx(expected(), rel=1e-12)
    assert "u" in marg.plan(*args[:2], y=args[2]).integrated
    everything = {"tau": 0.8, "b": 0.1, "u": np.arange(3.0)}
    found = log_density(marg.source, args, {}, everything)[0]
    np.testing.assert_allclose(found, log_density(model, (G, X, Y), {}, everything)[0])


def test_columns_inside_of_containers_and_partials():
    def of_dict(data):
        model(data["g"], data["more"][0], data["two"].y)

    data = {"g": pandas(G), "more": [polars(X)], "two": TWO(X, pandas(Y))}
    assert density(autmarg.transform(of_dict), data) == pytest.approx(expected(), rel=1e-12)
    assert isinstance(data["g"], type(pandas(G)))
    bound = functools.partial(model, pandas(G), x=pandas(X))
    assert density(autmarg.transform(bound), y=pandas(Y)) == pytest.approx(expected(), rel=1e-12)


def test_columns_that_a_model_closes_over():
    g, x, y = pandas(G), pandas(X), polars(Y)

    def closed():
        model(g, x, y)

    def reads():
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        b = numpyro.sample("b", dist.Normal(0, 1))
        u = numpyro.sample("u", dist.Normal(0, tau).expand([3]))
        numpyro.sample("y", dist.Normal(u[g] + b * x, 0.7), obs=y)

    for own in (closed, reads):
        assert density(autmarg.transform(own)) == pytest.approx(expected(), rel=1e-12)


def test_a_column_keeps_its_own_methods_and_spread():
    seen = {}

    def standardised(g, x, y):
        seen.update(n=g.nunique(), values=g.values, std=x.std(), of_part=(x - x.mean()).std())
        model(g, (x - x.mean()) / x.std(), y)

    marg = autmarg.transform(standardised)
    found = density(marg, pandas(G), pandas(X), pandas(Y))
    assert found == pytest.approx(density(marg, pandas(G), pandas(X), Y), rel=1e-12)
    assert seen["n"] == 3
    assert seen["std"] == pytest.approx(X.std(ddof=1))
    assert seen["of_part"] == pytest.approx(X.std(ddof=1))
    assert np.std(as_array(pandas(X))) == pytest.approx(X.std())


def frames():
    columns = {"g": G, "x": X, "y": Y, "label": list("abcdef")}
    yield pytest.importorskip("pandas").DataFrame(columns)
    yield pytest.importorskip("polars").DataFrame(columns)
    yield pytest.importorskip("pyarrow").table(columns)


@pytest.mark.parametrize("k", range(3), ids=["pandas", "polars", "pyarrow"])
def test_columns_that_a_model_takes_out_of_a_table(k):
    table = list(frames())[k]

    def of_table(table):
        assert len(table) == 6
        model(table["g"], jnp.asarray(table["x"]), table["y"])

    assert density(autmarg.transform(of_table), table) == pytest.approx(expected(), rel=1e-12)
    with pytest.raises(autmarg.ModelError, match=r"\['label'\]' is a column of categories"):
        autmarg.transform(lambda table: model(table["label"], X, Y)).plan(table)


def test_a_table_of_pandas_is_still_one():
    pd = pytest.importorskip("pandas")
    table = next(frames())

    def of_table(table):
        assert isinstance(table, pd.DataFrame)
        means = table.groupby("g")["x"].mean()
        codes = pd.factorize(table["label"])[0] % 3
        assert table[["g", "x"]].to_numpy().shape == (6, 2) and len(means) == 3
        assert table.query("x > 0").shape[0] == 3 and (codes == [0, 1, 2, 0, 1, 2]).all()
        model(table.g, table.loc[:, "x"].values, table.y)

    assert density(autmarg.transform(of_table), table) == pytest.approx(expected(), rel=1e-12)
    assert type(table) is pd.DataFrame


class Held:
    def __init__(self, x):
        self.x = x

    def __call__(self, g, y):
        model(g, self.x, y)

    def method(self, g, y):
        model(g, self.x, y)


def test_columns_that_an_object_has():
    for own in (Held(pandas(X)), Held(pandas(X)).method, handlers.block(Held(pandas(X)), hide=[])):
        assert density(autmarg.transform(own), pandas(G), Y) == pytest.approx(expected())


def test_missing_values_of_a_float_column_are_nan():
    with pytest.raises(autmarg.ModelError, match=r"'y'.*found 1 NaN among 6"):
        density(autmarg.transform(model), G, X, nullable([None, *Y[1:]]))


def categories():
    return pandas(list("abcabc"), "category")


def dates():
    return pytest.importorskip("pandas").Series(np.arange(6).astype("datetime64[D]"))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (lambda: pandas(list("abcabc")), r"'g' is a column of categories or strings.*factorize"),
        (categories, r"'g' is a column of categories or strings.*x.cat.codes"),
        (lambda: pandas([3, 4, 5] * 2, "category"), r"'g' is a column of categories.*x.cat.codes"),
        (lambda: polars(list("abcabc")), r"'g' is a column of categories or strings.*factorize"),
        (lambda: arrow(list("abcabc")).dictionary_encode(), r"'g' is a column of categories"),
        (lambda: np.array(list("abcabc")), r"'g' is a column of categories or strings"),
        (
            lambda: np.array(["a", 1, 2, 0, 1, 2], object),
            r"'g' is an array of objects with strings",
        ),
        (lambda: np.array([None, 1, 2, 0, 1, 2], object), r"'g' is an array of objects \(NoneType"),
        (
            lambda: pandas([None, 1, 2, 0, 1, 2], "Int64"),
            r"'g' is an integer .* missing values \(1 of 6",
        ),
        (lambda: polars([None, 1, 2, 0, 1, 2]), r"'g' is an integer .* missing values \(1 of 6"),
        (lambda: pandas([True, None] * 3, "boolean"), r"'g' is an integer or boolean column with"),
        (dates, r"'g' is a column of dates or times.*timedelta64"),
    ],
)
def test_what_is_not_numeric_is_explained(column, words):
    values = column()
    with pytest.raises(autmarg.ModelError, match=words):
        autmarg.transform(model).plan(values, X, Y)


def test_a_model_may_code_a_category_itself():
    def coded(g, x, y):
        model(g.cat.codes.to_numpy(), x, y)

    assert density(autmarg.transform(coded), categories(), X, Y) == pytest.approx(expected())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((G, X[:5], Y), r"shapes g \(6,\), x \(5,\), y \(6,\)"),
        ((G, X, Y[:5]), r"data of shape \(5,\)(.|\n)*shapes g \(6,\), x \(6,\), y \(5,\)"),
        ((G, None, Y), "'x' is None: pass a value"),
        ((G, list(X), Y), r"'x' is a list: pass np.asarray\(x\)"),
        ((G, list(X), list(Y)), "'x' and 'y' are lists"),
        ((G, X.astype(object), Y), "'x' is an array of objects"),
    ],
)
def test_arguments_that_do_not_fit_are_named(args, words):
    with pytest.raises(autmarg.ModelError, match=words):
        autmarg.transform(model).plan(*args)


def test_what_the_users_code_raises_is_left_as_it_is():
    def careful(g, x, y):
        raise ValueError("expected a longer series")

    with pytest.raises(ValueError, match=r"^expected a longer series"):
        autmarg.transform(careful).plan(G, X, Y)


def test_identifiers_beyond_32_bits_are_not_wrapped():
    ids = np.array([2**40, 1, 2, 0, 1, 2])
    marg = autmarg.transform(model)
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(autmarg.ModelError, match="'g' has integers beyond 32 bits"):
            marg.plan(ids, X, Y)
        with pytest.raises(autmarg.ModelError, match="'g' has integers beyond 32 bits"):
            marg.plan(pandas(ids), X, Y)
        marg.plan(G.astype(np.int32), X, Y)


def _lookup(ids, y):
    with numpyro.plate("groups", 3):
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(u[ids], 1.0), obs=y)


@pytest.mark.parametrize("far", [2**33, -(2**40), 2**31])
def test_lookups_by_wider_identifiers_are_not_wrapped(far):
    """JAX looks up by 32 bits of them, in double precision, too."""
    y = np.array([0.1, 0.5, -0.3])
    with pytest.raises(autmarg.ModelError, match=r"beyond 32 bits at test_columns\.py:\d+ .* to "):
        autmarg.transform(_lookup).plan(np.array([0, 1, 2]) + far, y)
    with pytest.raises(autmarg.ModelError, match="beyond 32 bits"):
        autmarg.transform(_lookup).plan(np.array([0, far // 2, 2]) * 2, y)
