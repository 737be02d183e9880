"""The site has all public names, and every one of them says what it takes, returns and raises."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import autmarg
from autmarg.analysis.families.registry import BUILT_IN
from autmarg.plan.plan import Plan

DOCS = Path(__file__).resolve().parents[2] / "docs"
METHODS = [
    (owner.__name__, name)
    for owner in (autmarg.MarginalizedModel, Plan, autmarg.Report, autmarg.Passes)
    for name, value in inspect.getmembers(owner)
    if not name.startswith("_") and (callable(value) or isinstance(value, property))
]


def test_every_public_name_is_in_the_reference():
    pages = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"auto\w+:: (?:autmarg\.)?(\w+)\s", pages))
    assert set(autmarg.__all__) <= documented


@pytest.mark.parametrize(("owner", "name"), METHODS)
def test_public_methods_have_docstrings(owner, name):
    cls = Plan if owner == "Plan" else getattr(autmarg, owner)
    found = inspect.getattr_static(cls, name)
    text = inspect.getdoc(getattr(found, "fget", None) or getattr(cls, name)) or ""
    assert text.strip(), f"{owner}.{name} has no docstring"


@pytest.mark.parametrize("name", [n for n in autmarg.__all__ if n.islower()])
def test_public_functions_say_what_they_take(name):
    function = getattr(autmarg, name)
    text = inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"\b{parameter}\b", text), f"{name} does not say what {parameter} is"
    assert "Args:" in text and "Raises:" in text


def test_methods_say_what_they_take():
    model = autmarg.MarginalizedModel
    for name in ("recover", "predict", "to_arviz", "summary", "log_likelihood", "nuts"):
        text = inspect.getdoc(getattr(model, name))
        for parameter in list(inspect.signature(getattr(model, name)).parameters)[1:]:
            assert re.search(rf"\b{parameter}\b", text), f"{name} does not say what {parameter} is"
        assert "Args:" in text


def test_every_family_is_on_the_page_of_distributions():
    page = (DOCS / "distributions.md").read_text()
    for cls in BUILT_IN:
        assert f"`{cls.__name__}`" in page


def test_what_the_readme_links_to_is_there():
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(((?!http)[^)#]+)", text)
    assert "docs/figures/before_after.svg" in links
    assert [link for link in links if not (DOCS.parent / link).exists()] == []
