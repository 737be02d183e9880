"""The picture of the front page: a mixed model before and after, and what NUTS makes of both.

Draws ``before_after.svg`` into the folder that the first argument names. The graphs are those of
sleepstudy; effective sample sizes are of one chain each, 1,000 draws after 500 of warm-up.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import matplotlib
import numpy as np
import numpyro
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import autmarg
from autmarg import commands

GREY, INK = "#767676", "#1c1c1c"
SAMPLED, GONE, DATA = "#f6c08a", "#a9d8b4", "#d3d3d3"
WRITTEN = {
    "tau": (0.12, 0.86), "chol": (0.33, 0.86), "alpha": (0.54, 0.86), "beta": (0.72, 0.86),
    "sigma": (0.91, 0.86), "u": (0.225, 0.50), "reaction": (0.62, 0.13),
}  # fmt: skip
SAMPLING = {
    "tau": (0.24, 0.86), "chol": (0.47, 0.86), "sigma": (0.71, 0.86), "reaction": (0.47, 0.50),
    "alpha": (0.18, 0.13), "beta": (0.39, 0.13), "u": (0.72, 0.13),
}  # fmt: skip


def box(axes, place, text, fill, dashed=False):
    """A site, an ellipse-like box with its name."""
    x, y = place
    width = 0.055 + 0.022 * len(text)
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.05), width, 0.1, boxstyle="round,pad=0,rounding_size=0.05",
            fc=fill, ec=INK, lw=0.9, ls="--" if dashed else "-", zorder=3,
        )
    )  # fmt: skip
    axes.text(x, y - 0.003, text, ha="center", va="center", color=INK, fontsize=9, zorder=4)


def frame(axes, place, label, beside=False):
    """A plate around a site, its label inside at the left, or beside it."""
    (x, y), width = place, 0.36
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.13), width, 0.21, boxstyle="round,pad=0,rounding_size=0.03",
            fc="none", ec=GREY, lw=0.8,
        )
    )  # fmt: skip
    left, up = (x + width / 2 + 0.02, y - 0.03) if beside else (x - width / 2 + 0.02, y - 0.125)
    axes.text(left, up, label, va="bottom", fontsize=7.5)


def arrow(axes, start, end, dashed=False):
    """From the lower edge of one site to the upper edge of another."""
    (x0, y0), (x1, y1) = start, end
    near = np.clip((x0 - x1) * 0.25, -0.07, 0.07)
    axes.annotate(
        "", (x1 + (0 if dashed else near), y1 + 0.052), (x0 - (near if dashed else 0), y0 - 0.052),
        arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 0.9, "ls": "--" if dashed else "-",
                    "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8},
    )  # fmt: skip


def graph(axes, title, places, gone, steps):
    """The model, what is integrated out drawn as recovered from the data."""
    axes.set(xlim=(0, 1), ylim=(-0.26, 1))
    axes.axis("off")
    axes.set_title(title, loc="left")
    frame(axes, places["u"], "18 subjects")
    frame(axes, places["reaction"], "180 rows", beside=bool(gone))
    for name, place in places.items():
        fill = DATA if name == "reaction" else GONE if name in gone else SAMPLED
        box(axes, place, name, fill, dashed=name in gone)
    if gone:
        arrows = [(n, "reaction") for n in places if n not in (*gone, "reaction")]
        arrows += [("reaction", name) for name in gone]
    else:
        arrows = [("tau", "u"), ("chol", "u")]
        arrows += [(n, "reaction") for n in ("alpha", "beta", "sigma", "u")]
    for start, end in arrows:
        arrow(axes, places[start], places[end], dashed=end in gone)
    axes.text(0.0, -0.15, f"{steps:.0f} gradients per draw", va="bottom")
    if gone:
        axes.text(0.0, -0.26, "dashed: drawn by recover, after sampling", va="bottom")


def effective(model, arguments, recover=None):
    """Effective sample sizes of all 42 latents, sorted, and leapfrog steps for each draw."""
    mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(0), *arguments, extra_fields=("num_steps",))
    draws = mcmc.get_samples()
    draws = draws if recover is None else recover(jax.random.key(1), mcmc, *arguments)
    names = ("alpha", "beta", "sigma", "tau", "chol", "u")
    each = np.concatenate(
        [np.ravel(effective_sample_size(np.asarray(draws[name])[None])) for name in names]
    )
    return np.sort(each[np.isfinite(each)]), mcmc.get_extra_fields()["num_steps"].mean()


def main(out: Path) -> None:
    """Sample both, and draw."""
    numpyro.enable_x64()
    matplotlib.rc_file(Path(__file__).parent / "matplotlibrc")
    study = commands.demo().examples()[0]
    marg = autmarg.transform(study.model)
    plan = marg.plan(*study.arguments)
    stay = sum(plan.dimensions[name] for name in plan.kept)
    before, steps_before = effective(study.model, study.arguments)
    after, steps_after = effective(marg, study.arguments, marg.recover)

    figure = Figure(figsize=(10.6, 3.5))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    whole = sum(plan.dimensions.values())
    graph(left, f"as written: NUTS in {whole} dimensions", WRITTEN, (), steps_before)
    graph(middle, f"transformed: NUTS in {stay}", SAMPLING, plan.integrated, steps_after)
    right.plot(before, "o", ms=4, color="#d9763a", label="as written")
    right.plot(after, "o", ms=4, color="#2f80c2", label="transformed")
    right.set(ylim=(0, None), xlabel="latents, sorted", xticks=[])
    right.set_title("effective draws of 1,000", loc="left")
    right.legend(loc="lower right")
    figure.savefig(out / "before_after.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
