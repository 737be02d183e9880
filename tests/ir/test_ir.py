"""The IR: text that reads back, the invariant checker after every pass, its complaints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.analysis.admissible import facts_of
from autmarg.analysis.sites import normalise
from autmarg.driver import compile_program
from autmarg.ir import disk
from autmarg.ir.disk import live, load, save
from autmarg.ir.evaluate import evaluate
from autmarg.ir.parser import parse
from autmarg.ir.printer import Printer
from autmarg.ir.store import Store, read_program
from autmarg.ir.verifier import check
from autmarg.passes.default import default_passes
from autmarg.passes.pipeline import Passes
from autmarg.passes.simplify import Simplify
from autmarg.trace.capture import trace_program
from examples.models import REFERENCE
from tests.programs import test_strangers as strangers
from tests.programs import test_strangers_series as series
from tests.support.lanes import lanes
from tests.support.programs import CASES, Y


@dataclass(frozen=True)
class Without:
    """Take a site out."""

    site: str
    name = "without"

    def apply(self, program):
        return program.replace_nodes(n for n in program.nodes if n.name != self.site)


SOURCE = """\
program three_levels : float64
  const SCHOOL_OF : int32[5] #5b540bff
  const GROUP : int32[40] #d9837f06
  const %y : float64[40] #cd2c9c86
  mu ~ Normal(0, 5)
  t1 ~ HalfNormal(1)
  t2 ~ HalfNormal(1)
  s ~ HalfNormal(1)
  school[3] ~ Normal(mu, t1)
  pupil[5] ~ Normal(school[SCHOOL_OF], t2)
  effect[5] = pupil - mu
  ratio = t1 / t2
  y[40] ~ Normal(pupil[GROUP], s) observed %y"""

REWRITTEN = """\
program three_levels : float64
  const GROUP : int32[40] #d9837f06
  const %y : float64[40] #cd2c9c86
  const SCHOOL_OF : int32[5] #5b540bff
  t1 ~ HalfNormal(1)
  t2 ~ HalfNormal(1)
  s ~ HalfNormal(1)
  effect[5] = pupil - mu
  ratio = t1 / t2
  marginal "marginal(y)" given s, t1, t2 {
    stage "dense root of 9"
    y[40] ~ Normal(pupil[GROUP], s) observed %y
  }
  recover "recover(mu, school, pupil)" from "marginal(y)" by "linear Gaussian" given s, t1, t2 {
    mu ~ Normal(0, 5)
    school[3] ~ Normal(mu, t1)
    pupil[5] ~ Normal(school[SCHOOL_OF], t2)
  }"""

SMALL = """\
program small : float64
  plate g:5 at -1
  const %y : float64[5] #00000000
  fragment %f1(tau) : float64[] #11111111 by sort
  tau ~ HalfNormal(1)
  u[g:5, 2] ~ Normal(0, 2 * tau ** 2)
  y[g:5] ~ Normal(u[:, 0] - %f1(tau) * (u[:, 1] - 3), -tau) observed %y"""


def traced(name):
    return trace_program(CASES[name].model, (Y,), {})[0]


def programs_of(program):
    """A program and what every pass makes of it."""
    found = [program]
    compile_program(program, default_passes(), lambda step: found.append(step.after))
    return found


def check_text(program):
    """The text reads back as text, as a structure, and, with the store, as the same program."""
    text, store = str(program), Store(program)
    assert str(parse(text)) == text
    assert str(read_program(text)) == text
    again = read_program(text, store)
    assert again.nodes == program.nodes and again.tape is program.tape
    assert again.fingerprint == program.fingerprint


def test_goldens():
    program = traced("three_levels")
    before, *_, after = programs_of(program)
    assert str(before) == SOURCE
    assert str(after) == REWRITTEN


@pytest.mark.parametrize("name", CASES)
def test_text_reads_back_before_and_after_every_pass(name):
    for program in programs_of(traced(name)):
        check_text(program)


# One of the models of crossed subjects and items, and the largest.
QUICK = {"insteval", "grouseticks", "fibrosis", "dutch", "gg05", "stroop"}


@pytest.mark.parametrize("name", lanes(REFERENCE, QUICK))
def test_text_of_reference_models_reads_back(name, arguments):
    model, args = REFERENCE[name].first, arguments(REFERENCE[name])
    for program in programs_of(trace_program(model, args, {})[0]):
        check_text(program)


def test_text_of_rows_in_cross_products_reads_back():
    def model(x, y):
        b = numpyro.sample("b", dist.Laplace(0, 1))
        numpyro.sample("y", dist.Normal(b * x, 1.0), obs=y)

    rows = np.ones(3000)
    *_, after = programs_of(trace_program(model, (rows, rows), {})[0])
    assert 'marginal "marginal(y)" given b {' in str(after)
    check_text(after)


@pytest.mark.parametrize("name", ["social_relations", "holt_winters_scan", "hidden_markov"])
def test_text_of_programs_with_fragments_reads_back(name):
    model, _ = (strangers.CASES | series.CASES)[name]
    check_text(trace_program(model, (), {})[0])


def test_a_published_model_reads_as_one_writes_it(arguments):
    program = trace_program(REFERENCE["pupil"].first, arguments(REFERENCE["pupil"]), {})[0]
    lines = str(program).splitlines()
    assert "  u[subjects:20, 2] ~ MultivariateNormal(0, scale_tril=tau_u[:, new] * L_u)" in lines
    mean = "alpha + u[subj, 0] + load * (beta + u[subj, 1])"
    assert f"  p_size[trials:2228] ~ Normal({mean}, sigma) observed %p_size" in lines


@pytest.mark.parametrize(
    ("text", "own", "expected"),
    [
        (SMALL, Simplify(), SMALL),
        (SMALL, Without("u"), "'y' reads 'u', expected latent sites"),
        (
            "program m : float64\n  x[3] ~ Cauchy(0, 1)\n  t = x + 1",
            Without("t"),
            "program m : float64\n  x[3] ~ Cauchy(0, 1)",
        ),
        (SMALL, default_passes()["detect"], "read from text without its store"),
        (SMALL, default_passes()["marginalise"], "pass 'marginalise' needs a plan"),
    ],
)
def test_text_in_pass_text_out(text, own, expected):
    passes, program = Passes((own,)), read_program(text)
    if expected.startswith("program"):
        assert str(passes.run(program)) == expected
    else:
        with pytest.raises(autmarg.AutmargError, match=expected):
            passes.run(program)


def test_an_edited_line_is_built_anew():
    program = traced("three_levels")
    text = SOURCE.replace("Normal(mu, t1)", "StudentT(4, mu, 2 * t1 + exp(ratio0))")
    text = text.replace("  s ~", "  ratio0[3] ~ Cauchy(0, 1)\n  s ~")
    edited = read_program(text, Store(program))
    assert str(edited) == text
    assert edited["pupil"] is program["pupil"]
    assert edited["school"].parents == {"mu", "t1", "ratio0"}
    values = {"mu": 0.3, "t1": 0.5, "ratio0": jnp.arange(3.0)}
    fn = edited["school"].distribution.build(edited.tape, values)
    expected = dist.StudentT(4, 0.3, 1.0 + jnp.exp(jnp.arange(3.0)))
    np.testing.assert_allclose(fn.log_prob(jnp.ones(3)), expected.log_prob(1.0), rtol=1e-12)
    assert compile_program(edited, default_passes()).plan.integrated == ("pupil",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("Normal(mu, t1)", "Normal(mu, t9)"), "'school' reads 't9', which is no site"),
        (("Normal(mu, t1)", "Abnormal(mu, t1)"), "unknown function 'Abnormal'"),
        (("school[3] ~", "school[4] ~"), "shape .4,. in the text, .3,. in the store"),
        (("t1 / t2", "pupil @ pupil[SCHOOL_OF, 0]"), "'ratio' as edited cannot be computed"),
    ],
)
def test_edits_that_make_no_sense(change, words):
    with pytest.raises(autmarg.ModelError, match=words):
        read_program(SOURCE.replace(*change), Store(traced("three_levels")))


BAD_TEXT = {
    "program m : float64\n  x[3 ~ Normal(0, 1)": """\
line 2, column 7 of the program's text:
    x[3 ~ Normal(0, 1)
        ^ found '~', expected ',' or ']'""",
    "program m : float64\n  plate p:many at -1": """\
line 2, column 11 of the program's text:
    plate p:many at -1
            ^ found 'many', expected a whole number""",
    "x ~ Normal(0, 1)": """\
line 1, column 1 of the program's text:
  x ~ Normal(0, 1)
  ^ found 'x', expected 'program'""",
    "program m : float64\n  y ~ Normal(0, 1": """\
line 2, column 18 of the program's text:
    y ~ Normal(0, 1
                   ^ the text ends, expected ')', '+', ',' or '-'""",
    "program m : float64\n  y ~ Normal(0, $)": """\
line 2, column 17 of the program's text:
    y ~ Normal(0, $)
                  ^ found '$', expected a %name, a name, a number, inf, nan, true or false, \
text in quotes, '(' or '-'""",
}


@pytest.mark.parametrize("text", BAD_TEXT)
def test_parse_errors_point_at_the_place(text):
    with pytest.raises(autmarg.ModelError) as caught:
        parse(text)
    assert str(caught.value) == BAD_TEXT[text]


def test_text_that_is_no_program():
    with pytest.raises(autmarg.ModelError, match=r"plate 'g' of 5: expected one of \['g:4'\]"):
        read_program(SMALL.replace("plate g:5", "plate g:4"))
    with pytest.raises(autmarg.ModelError, match="two nodes of one name"):
        read_program(SMALL + "\n  tau ~ Cauchy(0, 1)")


def test_the_checker_complains():
    program = traced("three_levels")
    with pytest.raises(autmarg.InternalError, match="two nodes of one name"):
        check(program.replace_nodes([*program.nodes, program.nodes[0]]))
    with pytest.raises(autmarg.InternalError, match="'nobody'"):
        stray = replace(program.nodes[-1], parents=frozenset({"nobody"}))
        check(program.replace_nodes([*program.nodes[:-1], stray]))
    with pytest.raises(autmarg.InternalError, match="undeclared plates"):
        stray = replace(program.nodes[-1], plates=("nowhere",))
        check(program.replace_nodes([*program.nodes[:-1], stray]))
    rewritten = compile_program(program, default_passes()).program
    with pytest.raises(autmarg.InternalError, match="still sampled"):
        check(rewritten.replace_nodes([*rewritten.nodes, program.nodes[0]]))


def test_folding_leaves_only_what_depends_on_latents():
    normalised = normalise(traced("radon"))
    tape = normalised.program.tape
    assert all(tape.dependencies(e.outputs) for e in tape.equations)
    assert facts_of(normalised).degrees


def test_a_registered_family_is_integrated():
    import numpyro
    import numpyro.distributions as dist

    class Shifted(dist.Normal):
        """A Normal of another class, which no family reads until it is registered."""

    def model(y):
        u = numpyro.sample("u", Shifted(0.0, 1.0))
        s = numpyro.sample("s", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(u, s), obs=y)

    marg = autmarg.transform(model)
    assert marg.plan(Y).integrated == ()
    autmarg.register_gaussian(Shifted, lambda d: autmarg.Gaussian(d.loc, scale=d.scale))
    with pytest.raises(autmarg.ModelError, match="registered already"):
        autmarg.register_gaussian(Shifted, lambda d: autmarg.Gaussian(d.loc, scale=d.scale))
    fresh = autmarg.transform(model)
    assert fresh.plan(Y).integrated == ("u",)
    autmarg.verify(fresh, Y, points=2, quiet=True)


def noncentred():
    t, mu = numpyro.sample("t", dist.HalfNormal(1)), numpyro.sample("mu", dist.Cauchy(0, 1))
    x = numpyro.sample("x", dist.Normal(mu, t).expand([3]))
    lower = t * jnp.array([[1.0, 0.0], [0.5, 2.0]])
    w = numpyro.sample("w", dist.MultivariateNormal(mu * jnp.ones(2), scale_tril=lower).expand([3]))
    z = numpyro.sample("z", dist.LogNormal(mu, t * np.arange(1.0, 4.0)))
    numpyro.sample("y", dist.Poisson(jnp.exp(x) * z + w.sum()), obs=np.array([1, 2, 3]))


EXACT = ("multivariate_likelihood", "random_walk", "sum_to_zero", "radon", "gaussian_process")


@pytest.mark.parametrize("name", ["noncentred", *EXACT])
def test_expressions_say_what_is_computed(name):
    """Each one evaluates to the value that it was written from, shape included."""
    if name == "noncentred":
        program = compile_program(trace_program(noncentred, (), {})[0], default_passes()).program
        assert "as mu + t * x_decentered slope 3 * log(abs(t)) {" in str(program)
    else:
        program = traced(name)
    printer = Printer(program)
    writer, tape = printer.writer, printer.tape
    rng = np.random.default_rng(0)
    sites = {n: jnp.asarray(rng.uniform(0.2, 0.9, tape.avals[v].shape))
             for n, v in tape.inputs.items() if not n.startswith("@")}  # fmt: skip
    numbers = [*writer._written, *writer.fragments.values()]
    truth = dict(zip(numbers, tape.evaluate(numbers, sites), strict=True))
    known = {**writer.arrays, **sites, **{f: truth[v] for f, v in writer.fragments.items()}}
    assert writer._written
    for number, expression in writer._written.items():
        found = jnp.broadcast_to(evaluate(expression, known), truth[number].shape)
        np.testing.assert_allclose(found, truth[number], rtol=1e-12, err_msg=str(expression))


def check_disk(program, path):
    """What is read is what was written, and written again it is the same."""
    save(program, path, {"note": 1})
    found, notes = load(path)
    assert notes == {"note": 1} and str(found) == str(program)
    assert check(found).fingerprint == live(program).fingerprint
    assert read_program(str(program), Store(found)).nodes == found.nodes
    return found


@pytest.mark.parametrize("name", lanes(REFERENCE, QUICK))
def test_reference_models_on_disk(name, arguments, tmp_path):
    model, args = REFERENCE[name].first, arguments(REFERENCE[name])
    check_disk(trace_program(model, args, {})[0], tmp_path / "store")


@pytest.mark.parametrize("name", ["missing_covariate", "kept_child", "hidden_markov", "car_areal"])
def test_programs_on_disk(name, tmp_path):
    other = strangers.CASES | series.CASES
    program = traced(name) if name in CASES else trace_program(other[name][0], (), {})[0]
    check_disk(program, tmp_path / "store")


def test_functions_on_disk_keep_their_own_derivatives(tmp_path):
    def model():
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.deterministic("d", jax.nn.softplus(x) + jax.nn.relu(x) + jax.nn.silu(x))

    program = trace_program(model, (), {})[0]
    save(program, tmp_path / "store", {})
    found, _ = load(tmp_path / "store")

    def derivative(program, order):
        def value(x):
            return program.tape.evaluate([program["d"].value], {"x": x})[0]

        for _ in range(order):
            value = jax.grad(value)
        return jax.jit(value)(0.0)

    for order in range(4):
        assert derivative(found, order) == derivative(program, order)


def test_what_has_no_place_in_a_file(tmp_path, monkeypatch):
    class Own(dist.Normal):
        """A class that is not NumPyro's."""

    def model():
        numpyro.sample("x", Own(0.0, 1.0))

    with pytest.raises(autmarg.RequestError, match=r"'x' holds a .*Own, which cannot be stored"):
        save(trace_program(model, (), {})[0], tmp_path / "store", {})
    program = compile_program(traced("radon"), default_passes()).program
    with pytest.raises(autmarg.RequestError, match="expected the program as traced"):
        save(program, tmp_path / "store", {})
    save(traced("radon"), tmp_path / "store", {})
    monkeypatch.setitem(disk._VERSIONS, "jax", "0.0")
    with pytest.raises(autmarg.RequestError, match=r"written under jax .*, this is jax 0\.0"):
        load(tmp_path / "store")
