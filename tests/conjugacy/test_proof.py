"""The language of rules and their proof: every shipped rule holds, every mutant is rejected."""

from __future__ import annotations

import re

import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro.distributions as dist
import pytest
import sympy

import autmarg
from autmarg.__main__ import main
from autmarg.conjugacy.families import FAMILIES, onehot
from autmarg.conjugacy.marginal_likelihood import jax_function, marginal_likelihood
from autmarg.conjugacy.parser import parse
from autmarg.conjugacy.proof import prove
from autmarg.conjugacy.registry import SHIPPED, shipped

GAMMA_POISSON = """\
rule gamma_poisson
  prior  x ~ Gamma(a, b)
  child  y ~ Poisson(e * x) given e > 0
  update a -> a + sum(y), b -> b + sum(e)
"""
NORMAL_NORMAL = """\
rule normal_normal  # mean and standard deviation, as a textbook has them
  prior  x ~ Normal(m, s)
  child  y ~ Normal(x, e)
  update m -> (m / s**2 + sum(y / e**2)) / (1 / s**2 + sum(1 / e**2)),
         s -> 1 / sqrt(1 / s**2 + sum(1 / e**2))
"""


@pytest.mark.parametrize("rule", shipped(), ids=SHIPPED)
def test_every_shipped_rule_is_proved_by_sympy(rule):
    proof = prove(rule)
    assert [claim for claim, _ in proof.steps] == [
        "posterior", "many children", "parameters", "support",
    ]  # fmt: skip
    assert all(how.startswith("sympy") for _, how in proof.steps)


def mutants(text):
    """One sign changed, or one factor of 2, anywhere in what a rule says of child and update."""
    head = text.index("(", text.index("child"))
    for match in re.finditer(r"(?<=[\w)] )([-+])(?= )", text[head:]):
        at = head + match.start()
        yield text[:at] + {"+": "-", "-": "+"}[text[at]] + text[at + 1 :]
    for match in re.finditer(r"\b(?!given|update|0)\w+\b(?! ->| ~|\()", text[head:]):
        at, end = head + match.start(), head + match.end()
        if " given " in text and text.rindex("given") <= at < text.index("update"):
            continue
        yield f"{text[:at]}(2 * {match[0]}){text[end:]}"


@pytest.mark.parametrize("rule", shipped(), ids=SHIPPED)
def test_every_mutant_of_a_shipped_rule_is_rejected(rule):
    found = [*mutants(rule.text)]
    assert len(found) >= 5 - 2 * rule.prior.family.vector
    for text in found:
        (mutant,) = parse(text)
        with pytest.raises(autmarg.ModelError, match=f"rule '{rule.name}' is wrong"):
            prove(mutant)


@pytest.mark.parametrize(
    ("old", "new", "residual"),
    [
        ("b + sum(e)", "b + sum(2 * e)", "should be 0: found e"),
        ("a + sum(y)", "2 * a + sum(y)", "should be 0: found -a/x"),
        (" given e > 0", "", "Gamma's rate should be positive for every x: found b + e"),
    ],
)
def test_a_wrong_rule_shows_its_residual(old, new, residual):
    with pytest.raises(autmarg.ModelError) as error:
        autmarg.register_rule(GAMMA_POISSON.replace(old, new))
    assert residual in str(error.value)


def test_a_support_that_moves_is_followed():
    (rule,) = (r for r in shipped() if r.name == "pareto_uniform")
    wrong = rule.text.replace("max(m, max(y))", "m")
    with pytest.raises(autmarg.ModelError, match=r"bound Max\(m, y\).*found m"):
        prove(parse(wrong)[0])


def test_updates_need_not_be_sums():
    (rule,) = parse(NORMAL_NORMAL)
    assert dict(prove(rule).steps)["many children"].startswith("sympy")
    # The average of means is right for one child and wrong for two.
    wrong = NORMAL_NORMAL.replace("sum(1 / e**2)),\n", "sum(1 / e**2) * count),\n")
    with pytest.raises(autmarg.ModelError, match="after all should be 0"):
        prove(parse(wrong)[0])


def test_where_the_derivative_does_not_simplify_there_are_two_more_ways(monkeypatch):
    monkeypatch.setattr(sympy, "simplify", lambda expression: expression)
    (counts,), (reals,) = parse(GAMMA_POISSON), parse(NORMAL_NORMAL)
    assert dict(prove.__wrapped__(counts).steps)["posterior"].startswith("sympy (the ratio")
    how = dict(prove.__wrapped__(reals).steps)
    assert how["posterior"] == "numerically, to 40 digits at 24 points"
    (wrong,) = parse(NORMAL_NORMAL.replace("y / e**2", "y / e"))
    with pytest.raises(autmarg.ModelError, match="should be 0"):
        prove(wrong)


def test_names_are_the_users_own():
    """The proof and the formulas make symbols of their own: none is mistaken for another."""
    text = """
        rule clash
          prior  x ~ Normal(s_0, u)
          child  y ~ Normal(x, t_0)
          update s_0 -> (s_0 / u**2 + sum(y / t_0**2)) / (1 / u**2 + sum(1 / t_0**2)),
                 u -> 1 / sqrt(1 / u**2 + sum(1 / t_0**2))
    """
    (rule,) = parse(text)
    prove(rule)
    formula = marginal_likelihood(rule)
    found = formula.parameters(0.3, 1.0, 4.0, 4.0 * 1.5) + formula.child(1.5, 0.5)
    expected = dist.Normal(0.3, np.sqrt(1.0 + 0.25)).log_prob(1.5)
    assert float(found) == pytest.approx(float(expected), abs=1e-13)
    with pytest.raises(autmarg.ModelError, match="is wrong"):
        prove(parse(text.replace("(s_0 / u**2", "(s_0 * count / u**2"))[0])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1, column 1 of the rules:\n  \n  ^ found the end, expected 'rule'"),
        (
            GAMMA_POISSON.replace("Gamma(a", "Gama(a"),
            "line 2, column 14 of the rules:\n    prior  x ~ Gama(a, b)\n"
            + " " * 15 + "^ found 'Gama', expected one of Beta, Gamma,",
        ),
        (GAMMA_POISSON.replace("e * x)", "e * x"), "found 'given', expected an operator or"),
        (GAMMA_POISSON.replace("y ~", "y ="), "found '=', expected '~'"),
        (GAMMA_POISSON.replace("(a, b)", "(a, b, c)"), "found 3 arguments, expected 2"),
        (GAMMA_POISSON.replace("sum(y)", "y"), "found 'y' of one child, expected it inside sum"),
        (GAMMA_POISSON.replace("sum(y)", "sum(x)"), "found 'x', expected one of e, y"),
        (GAMMA_POISSON.replace("sum(y)", "sum(a)"), "found 'a', expected one of e, y"),
        (GAMMA_POISSON.replace("sum(y)", "total(y)"), "found 'total', expected a function"),
        (GAMMA_POISSON.replace("sum(y),", "sum("), "expected an expression"),
        (GAMMA_POISSON.replace("e > 0", "e > 2"), "expected a condition like 'e > 0'"),
        (GAMMA_POISSON.replace("e > 0", "b > 0"), "found 'b', expected one of: e"),
        (GAMMA_POISSON.replace("e * x", "a * x"), "found 'a', a parameter of the prior"),
        (GAMMA_POISSON.replace("e * x", "e"), "expected 'x' among its arguments"),
        (GAMMA_POISSON.replace("b ->", "a ->"), "that has no update yet: b"),
        (GAMMA_POISSON.replace("x ~", "sum ~"), "which has a meaning already"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_language_is_shown_with_a_caret(text, complaint):
    with pytest.raises(autmarg.ModelError) as error:
        parse(text)
    assert complaint in str(error.value)


def test_the_command_line_proves_a_file(tmp_path, capsys):
    file = tmp_path / "mine.rules"
    file.write_text(GAMMA_POISSON + NORMAL_NORMAL)
    assert main(["rules", "check", str(file)]) == 0
    assert "normal_normal: proved\n  posterior: sympy" in capsys.readouterr().out
    file.write_text(GAMMA_POISSON.replace("sum(e)", "sum(3 * e)"))
    assert main(["rules", "check", str(file)]) == 3
    assert "is wrong: the derivative in x of" in (err := capsys.readouterr().err)
    assert "should be 0: found 2*e" in err
    file.write_text(
        GAMMA_POISSON.replace("sum(y)", "sum(y) * (count + count**2) / (count * (count + 1))")
    )
    assert main(["rules", "check", str(file)]) == 4
    assert "could be neither proved nor refuted: a after no children" in capsys.readouterr().err
    assert main(["rules", "check", str(tmp_path / "absent.rules")]) == 1


REAL, POSITIVE, UNIT = [-0.7, 0.4, 2.0], [0.3, 1.0, 2.5], [0.2, 0.5, 0.9]
POINTS = {
    "Beta": (POSITIVE, [1.5, 0.4, 2.0], UNIT),
    "Gamma": (POSITIVE, [1.5, 0.4, 2.0], POSITIVE),
    "InverseGamma": (POSITIVE, [1.5, 0.4, 2.0], POSITIVE),
    "Pareto": (POSITIVE, [1.5, 0.4, 2.0], [0.4, 1.2, 9.0]),
    "Normal": (REAL, POSITIVE, [1.5, 0.4, 2.0]),
    "Exponential": (POSITIVE, [1.5, 0.4, 2.0]),
    "Uniform": (REAL, [1.5, 0.6, 3.0], [0.4, 0.5, 2.5]),
    "Bernoulli": (UNIT, [0, 1, 1]),
    "Binomial": ([3, 5, 7], UNIT, [0, 2, 7]),
    "Geometric": (UNIT, [0, 3, 1]),
    "NegativeBinomial": (POSITIVE, UNIT, [0, 3, 1]),
    "Poisson": (POSITIVE, [0, 3, 1]),
    "Dirichlet": ([[0.3, 1.0, 2.5]], [[0.2, 0.3, 0.5]]),
    "Multinomial": ([7], [[0.2, 0.3, 0.5]], [[2, 1, 4]]),
    "Categorical": ([[0.2, 0.3, 0.5]], [2]),
}
# A class where NumPyro has a factory function, the order of whose arguments is another.
CLASSES = {
    "Binomial": lambda n, p: dist.BinomialProbs(p, n),
    "Multinomial": lambda n, p: dist.MultinomialProbs(p, n),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_densities_are_numpyros(family):
    *parameters, value = map(np.asarray, POINTS[family.name])
    theirs = CLASSES.get(family.name, getattr(dist, family.name))(*parameters).log_prob(value)
    symbols = [sympy.Symbol(name) for name, _ in family.parameters]
    x = sympy.Symbol("x")
    shown = value
    if family.labels:
        shown = np.eye(parameters[0].shape[-1])[value]
    elif family.name == "Multinomial":
        parameters[0] = parameters[0][:, None]
    density = family.log_density(x, tuple(symbols)).replace(onehot, lambda value: value)
    ours = jax_function((*symbols, x), density)(*map(jnp.asarray, (*parameters, shown)))
    np.testing.assert_allclose(np.ravel(ours), theirs, rtol=1e-13)


@pytest.mark.parametrize("name", ["Beta", "Gamma", "InverseGamma", "Pareto", "Normal"])
def test_densities_of_priors_integrate_to_one(name):
    family = FAMILIES[name]
    arguments = (sympy.Rational(3, 2), sympy.Rational(5, 2))
    x = sympy.Symbol("x")
    density = sympy.lambdify(x, sympy.exp(family.log_density(x, arguments)), "mpmath")
    low, _ = family.limits(x, arguments)
    ends = {"real": (-mpmath.inf, 0, mpmath.inf), "between 0 and 1": (0, 1)}
    interval = ends.get(family.support, (float(low or 0), float(low or 0) + 1, mpmath.inf))
    assert abs(mpmath.quad(density, interval) - 1) < 1e-10
