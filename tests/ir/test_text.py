"""The text of programs: it reads back, edited too, and its expressions say what is computed."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.backend.compiled import compile_program
from autmarg.ir.evaluate import evaluate
from autmarg.ir.parser import parse
from autmarg.ir.printer import Printer
from autmarg.ir.store import Store, read_program
from autmarg.passes.default import default_passes
from autmarg.passes.pipeline import Passes
from autmarg.passes.simplify import Simplify
from autmarg.trace.capture import trace_program
from examples.models import REFERENCE
from tests.programs import test_strangers as strangers
from tests.programs import test_strangers_series as series
from tests.support.compiled import QUICK, programs_of, traced
from tests.support.lanes import lanes
from tests.support.programs import CASES


@dataclass(frozen=True)
class Without:
    """Take a site out."""

    site: str
    name = "without"

    def apply(self, program):
        return program.replace_nodes(n for n in program.nodes if n.name != self.site)


SMALL = """\
program small : float64
  plate g:5 at -1
  const %y : float64[5] #00000000
  fragment %f1(tau) : float64[] #11111111 by sort
  tau ~ HalfNormal(1)
  u[g:5, 2] ~ Normal(0, 2 * tau ** 2)
  y[g:5] ~ Normal(u[:, 0] - %f1(tau) * (u[:, 1] - 3), -tau) observed %y"""


def check_text(program):
    """The text reads back as text, as a structure, and, with the store, as the same program."""
    text, store = str(program), Store(program)
    assert str(parse(text)) == text
    assert str(read_program(text)) == text
    again = read_program(text, store)
    assert again.nodes == program.nodes and again.tape is program.tape
    assert again.fingerprint == program.fingerprint


@pytest.mark.parametrize("name", CASES)
def test_text_reads_back_before_and_after_every_pass(name):
    for program in programs_of(traced(name)):
        check_text(program)


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
    text = str(program).replace("Normal(mu, t1)", "StudentT(4, mu, 2 * t1 + exp(ratio0))")
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


def test_an_edit_that_cannot_be_computed():
    program = traced("three_levels")
    text = str(program).replace("t1 / t2", "pupil @ pupil[SCHOOL_OF, 0]")
    with pytest.raises(autmarg.ModelError, match="'ratio' as edited cannot be computed: "):
        read_program(text, Store(program))


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
        assert "as mu + t * x_decentered slope 3 * log(t) {" in str(program)
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
