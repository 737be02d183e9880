"""The IR: text that reads back, the invariant checker after every pass, its complaints."""

from __future__ import annotations

from dataclasses import replace

import pytest

import autmarg
from autmarg.analysis.admissible import facts_of
from autmarg.analysis.sites import normalise
from autmarg.driver import compile_program
from autmarg.ir.parser import parse
from autmarg.ir.program import check
from autmarg.passes.default import default_passes
from autmarg.trace.capture import trace_program
from tests.programs import CASES, Y

GOLDEN = """\
program three_levels
  sample mu ~ Normal : float64[]
  sample t1 ~ HalfNormal : float64[]
  sample t2 ~ HalfNormal : float64[]
  sample s ~ HalfNormal : float64[]
  sample school ~ Normal : float64[3] reads mu, t1
  sample pupil ~ Normal : float64[5] reads school, t2
  deterministic effect reads mu, pupil
  deterministic ratio reads t1, t2
  observe y ~ Normal : float64[40] reads pupil, s"""

REWRITTEN = """\
program three_levels
  sample t1 ~ HalfNormal : float64[]
  sample t2 ~ HalfNormal : float64[]
  sample s ~ HalfNormal : float64[]
  deterministic effect reads mu, pupil
  deterministic ratio reads t1, t2
  marginal "marginal(y)" of y reads s, t1, t2
  recover "recover(mu, school, pupil)" of mu, school, pupil reads s, t1, t2"""


def traced(name):
    return trace_program(CASES[name].model, (Y,), {})[0]


def test_goldens():
    program = traced("three_levels")
    assert str(program) == GOLDEN
    assert str(compile_program(program, default_passes()).program) == REWRITTEN


@pytest.mark.parametrize("name", CASES)
def test_text_reads_back_before_and_after_every_pass(name):
    programs = [traced(name)]
    compile_program(programs[0], default_passes(), lambda step: programs.append(check(step.after)))
    assert len(programs) > 1
    for program in programs:
        assert str(parse(str(program))) == str(program)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("program m\n  sample x ~ Normal float64[3]", "line 2, column 21"),
        ("program m\n  plate p size many dim -1", "line 2, column 16"),
        ("sample x", "line 1, column 1"),
    ],
)
def test_parse_errors_point_at_the_place(text, words):
    with pytest.raises(autmarg.ModelError, match=words):
        parse(text)


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
