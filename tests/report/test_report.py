"""Plans to look at: every view of a plan, and pictures in which nothing lies over anything."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import autmarg
from autmarg.report.drawing import CHARACTER, svg
from autmarg.report.graph import COLOURS
from examples.models import REFERENCE
from tests.support.programs import CASES, Y


def nested(y):
    """Plates inside plates, many scales, a deterministic site, a factor, names to escape."""
    scales = [numpyro.sample(f"scale_of_{k}", dist.HalfNormal(1.0)) for k in range(9)]
    mu = numpyro.sample("a<b", dist.Normal(0, 1))
    with numpyro.plate("outer", 3, dim=-2):
        with numpyro.plate("inner", 4, dim=-1):
            u = numpyro.sample("u", dist.Normal(mu, sum(scales)))
        v = numpyro.sample("v", dist.Cauchy(0, scales[0]).expand([3, 1]))
    numpyro.deterministic("total", u.sum())
    numpyro.factor("penalty", -(v**2).sum())
    numpyro.sample("y", dist.Normal((u + v).sum(), 1.0), obs=y)


def chain(y):
    """Two states of a scan that read each other, and a long edge past them."""
    a, s = (numpyro.sample(n, dist.HalfNormal(1.0)) for n in ("a", "s"))

    def step(last, seen):
        level = numpyro.sample("level", dist.Normal(last[0] + last[1], s))
        trend = numpyro.sample("trend", dist.Normal(last[1] * 0.5 + 0.1 * last[0], a))
        numpyro.sample("seen", dist.Normal(level, a), obs=seen)
        return (level, trend), None

    scan(step, (0.0, 0.0), y)


def plan_of(name, arguments):
    if name == "nested":
        return autmarg.transform(nested).plan(np.ones(3))
    if name == "chain":
        return autmarg.transform(chain).plan(np.ones(5))
    return autmarg.transform(REFERENCE[name].first).plan(*arguments(REFERENCE[name]))


def boxes(picture):
    """Rectangles (left, top, right, bottom) of the sites and of the frames' labels."""
    root = ET.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    for group in root.iter(f"{space}g"):
        rect = group.find(f"{space}rect")
        x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        text = group.find(f"{space}text").text
        assert CHARACTER * len(text) < w, f"{text} is wider than its site"
        yield text, (x, y, x + w, y + h)
    for label in root.findall(f"{space}text"):
        x, y = float(label.get("x")), float(label.get("y"))
        yield label.text, (x - CHARACTER * 0.93 * len(label.text), y - 10, x, y + 2)


@pytest.mark.parametrize("name", ["insteval", "gg05", "grouseticks", "stroop", "nested"])
def test_nothing_in_a_picture_lies_over_anything(name, arguments):
    for graph in plan_of(name, arguments).to_networkx():
        picture = svg(graph)
        width = float(re.search(r'viewBox="-?\d+ 0 (\d+)', picture).group(1))
        assert width < 900  # of 600 a side: labels of 8 px or more at 1280 px
        placed = list(boxes(picture))
        assert len(placed) >= len(graph)
        for (one, a), (two, b) in itertools.combinations(placed, 2):
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, f"{one} and {two} overlap"


def edges(picture):
    """Each edge as 30 points of every piece of its path."""
    root = ET.fromstring(picture)
    for edge in root.findall("{http://www.w3.org/2000/svg}path"):
        points, here = [], np.zeros(2)
        for letter, numbers in re.findall(r"([MLC])([^MLC]*)", edge.get("d")):
            ends = np.array(numbers.split(), float).reshape(-1, 2)
            t = np.linspace(0, 1, 30)[:, None]
            if letter == "L":
                points.append(here + t * (ends[0] - here))
            if letter == "C":
                a, b, c = ends
                curve = here * (1 - t) ** 3 + 3 * a * t * (1 - t) ** 2 + 3 * b * t**2 * (1 - t)
                points.append(curve + c * t**3)
            here = ends[-1]
        yield np.concatenate(points)


@pytest.mark.parametrize("name", ["insteval", "gg05", "grouseticks", "stroop", "nested", "chain"])
def test_no_edge_crosses_a_site_or_a_label(name, arguments):
    for graph in plan_of(name, arguments).to_networkx():
        picture = svg(graph)
        placed, lines = list(boxes(picture)), list(edges(picture))
        assert len(lines) == graph.number_of_edges()
        for points in lines:
            x, y = points.T
            for text, (left, top, right, bottom) in placed:
                inside = (left + 1 < x) & (x < right - 1) & (top + 1 < y) & (y < bottom - 1)
                assert not inside.any(), f"an edge crosses {text}"


def test_the_graphs_say_what_happens():
    before, after = autmarg.transform(nested).plan(np.ones(3)).to_networkx()
    assert before.nodes["u"]["action"] == "integrated out"
    assert before.nodes["u"]["plates"] == ("outer 3", "inner 4")
    assert "mean of y affine in it" in before.nodes["u"]["note"]
    assert before.nodes["v"]["place"].startswith("test_report.py:")
    assert set(after.predecessors("u")) == {"marginal(y)"}
    assert {data["action"] for _, data in after.nodes(data=True)} <= set(COLOURS)


def test_standard_noise_has_a_vertex_of_its_own():
    marg = autmarg.transform(nested, keep=["u", "a<b"], reparameterize=["u"])
    _, after = marg.plan(np.ones(3)).to_networkx()
    assert ("u_decentered", "u") in after.edges
    assert after.nodes["u"]["action"] == "sampled, non-centred"


def test_html_shows_both_graphs_and_the_reasons():
    plan = autmarg.transform(nested).plan(np.ones(3))
    page = plan.to_html()
    assert page.count("<svg") == 2 and plan._repr_html_() in page
    assert "a&lt;b" in page and "a<b" not in page
    assert "is a Cauchy, not Gaussian, and it" in page
    assert "D</i> columns that each block meets" in page and "**" not in page.split("<details>")[0]


def test_html_follows_a_dark_page_and_a_narrow_one():
    page = autmarg.transform(nested).plan(np.ones(3)).to_html()
    assert "color-scheme: light dark" in page and "width=device-width" in page
    style = page[: page.index("</style><div")]
    assert "background: #fff" not in style and "<div class='wide'><table>" in page


def test_json_has_everything():
    plan = autmarg.transform(CASES["radon"].model).plan(Y)
    found = json.loads(plan.to_json())
    assert found["integrated"] == ["gamma", "mu", "b", "a"]
    assert found["cost"]["multiply_adds"] == int(plan.cost)
    assert found["groups"][0]["stages"][0]["structure"] == "5 blocks of 1, dense to 4"
    assert [s["pass"] for s in found["history"]] == ["detect", "marginalise", "simplify"]
    assert found["refusals"][0]["reason"] and found["refusals"][0]["own"]["line"]


def test_dot_has_both_graphs_and_their_plates():
    text = autmarg.transform(CASES["radon"].model).plan(Y).to_dot()
    assert text.count("{") == text.count("}")
    assert '"before:a" [label="a"' in text and '"before:mu" -> "before:a"' in text
    assert '"after:marginal(y)" -> "after:a" [style=dashed];' in text
    assert 'label="houses 40"' in text


def test_latex_reads_like_a_methods_section(arguments):
    text = plan_of("pupil", arguments).to_latex()
    normal = r"\mathcal{N}\left("
    matrix = r"\left(\operatorname{diag}(\tau_{u}) L_{u}\right)"
    assert rf"u_{{i}} &\sim {normal}0, {matrix} {matrix}^{{\top}}\right)" in text
    mean = r"\alpha + u_{\mathrm{subj}_{i}, 1} + \mathrm{load}_{i} \, "
    mean += r"\left(\beta + u_{\mathrm{subj}_{i}, 2}\right)"
    site = r"p_{\mathrm{size}, i}"
    assert rf"{site} &\sim {normal}{mean}, \sigma^{{2}}\right), \quad i = 1, \ldots, 2228" in text
    assert r"\int p(" in text and r"\mathrm{d}(\alpha, \beta, u)" in text
    assert text.count("{") == text.count("}")


def crossed(x, z, g, y):
    """An effect of an outer plate, one of an inner one, data of one axis each, a product."""
    a = numpyro.sample("a", dist.Normal(0, 1))
    tau2 = numpyro.sample("tau2", dist.HalfNormal(1))
    outer, inner = numpyro.plate("outer", 3, dim=-2), numpyro.plate("inner", 4, dim=-1)
    with outer:
        m = numpyro.sample("m", dist.Normal(a, 1))
        with inner:
            u = numpyro.sample("u", dist.Normal(m, tau2))
    with inner:
        w = numpyro.sample("w", dist.Normal(0, 1))
    with outer, inner:
        numpyro.sample("y", dist.LogNormal(x * u + z * w, tau2), obs=y)
    b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("rows", 5):
        numpyro.sample("q", dist.Normal(np.ones((5, 2)) @ b + m[g, 0], 1), obs=np.ones(5))


def test_subscripts_in_latex_are_those_of_the_axes():
    data = np.arange(1.0, 4)[:, None], np.arange(1.0, 5), np.array([0, 1, 2, 1, 0]), np.ones((3, 4))
    text = autmarg.transform(crossed).plan(*data).to_latex()
    assert r"u_{i, j} &\sim \mathcal{N}\left(m_{i}, \tau_{2}^{2}\right)" in text
    mean = r"x_{i} \, u_{i, j} + z_{j} \, w_{j}"
    assert (
        rf"y_{{i, j}} &\sim \operatorname{{LogNormal}}\left({mean}, \tau_{{2}}^{{2}}\right)" in text
    )
    assert r"\, b\right]_{i} + m_{g_{i}, 1}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX here")
def test_latex_compiles(tmp_path):
    data = np.arange(1.0, 4)[:, None], np.arange(1.0, 5), np.array([0, 1, 2, 1, 0]), np.ones((3, 4))
    plans = (autmarg.transform(crossed).plan(*data), autmarg.transform(chain).plan(np.ones(5)))
    formulas = "".join(
        "\\[" + part.strip() + "\\end{aligned}\\]\n"
        for plan in plans
        for part in plan.to_latex().split(r"\end{aligned}")[:-1]
    )
    head = r"\documentclass{article}\usepackage{amsmath}\begin{document}"
    (tmp_path / "plan.tex").write_text(head + formulas + r"\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "plan.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-1500:]


def test_a_picture_of_g():
    pytest.importorskip("matplotlib")
    figure = autmarg.transform(CASES["radon"].model).plan(Y).figure()
    assert figure._repr_png_().startswith(b"\x89PNG")  # a notebook shows it without pyplot
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "gamma", "mu", "b"]
    assert sum(len(line.get_xdata()) for line in axes.lines) > 9
    with pytest.raises(
        autmarg.RequestError, match="no Gaussian latent of 'radon' is integrated out"
    ):
        autmarg.transform(
            CASES["radon"].model, keep=["gamma", "mu", "b", "a"]
        ).plan(Y).figure()  # fmt: skip


def test_a_model_without_sites_has_a_plan():
    plan = autmarg.transform(lambda x: x).plan(1.0)
    assert "nothing is integrated out" in str(plan)
    assert "nothing is integrated out" in plan.to_html()


def test_a_terminal_shows_the_table():
    console = pytest.importorskip("rich.console")
    plan = autmarg.transform(CASES["radon"].model).plan(Y)
    shown = console.Console(width=160, record=True, file=io.StringIO())
    shown.print(plan)
    text = shown.export_text()
    assert "integrated out" in text and "dense root of 4" in text and "N = 40 rows" in text
