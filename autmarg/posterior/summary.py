"""``marg.summary``: one table as readers of mixed models know it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autmarg.analysis.roles import Roles, roles
from autmarg.errors import RequestError
from autmarg.posterior.estimates import Rows, estimates, largest, rows_of, shown
from autmarg.posterior.inference_data import WholeFit, whole_fit
from autmarg.posterior.variances import Variances, correlation_rows, variances

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import Dataset

    from autmarg.posterior.after_fit import AfterFit

_ROWS = 40  # of a section that are printed


@dataclass(frozen=True, eq=False)
class Summary:
    """Estimates by section, each a pandas table with one row a quantity; prints as one table.

    Columns are the posterior mean, its standard deviation, the ends of an interval, bulk and tail
    effective sample size, R̂ (NaN with one chain, if ArviZ has none) and the Monte Carlo error of
    the mean.

    Attributes:
        title: model, draws, and what was integrated out.
        population: unconstrained latents in no plate ("fixed effects").
        groups: standard deviations and correlations of effects ("VarCorr").
        noise: what scales the noise of observed sites.
        effects: the largest effects ("ranef"), less their prior means.
        other: all other latents.
        left_out: how many effects are not among the largest.
    """

    title: str
    population: DataFrame
    groups: DataFrame
    noise: DataFrame
    effects: DataFrame
    other: DataFrame
    left_out: int

    @property
    def sections(self) -> dict[str, DataFrame]:
        """The tables that have rows, by what they are called."""
        count = len(self.effects)
        most = f"the {count} largest of {count + self.left_out}" if self.left_out else "all"
        named = {
            "Population-level effects": self.population,
            "Group-level standard deviations and correlations": self.groups,
            "Noise": self.noise,
            f"Group-level effects, as deviations from their prior means ({most})": self.effects,
            "Other": self.other,
        }
        return {name: table for name, table in named.items() if len(table)}

    @property
    def _shown(self) -> dict[str, tuple[DataFrame, int]]:
        """As text: the first rows of each section, and how many more there are."""
        return {
            name: (shown(table.head(_ROWS)), max(len(table) - _ROWS, 0))
            for name, table in self.sections.items()
        }

    def __str__(self) -> str:
        sections = self._shown
        if not sections:
            return self.title
        tables = [table for table, _ in sections.values()]
        label = max(len(str(row)) for table in tables for row in table.index)
        columns = tables[0].columns
        widths = [max(len(c), *(len(x) for table in tables for x in table[c])) for c in columns]
        head = " " * label + "".join(f"  {c:>{w}}" for c, w in zip(columns, widths, strict=True))
        lines = [self.title, "", head]
        for name, (table, more) in sections.items():
            lines += [name]
            for row, values in zip(table.index, table.values, strict=True):
                cells = "".join(f"  {x:>{w}}" for x, w in zip(values, widths, strict=True))
                lines.append(f"{row:<{label}}{cells}")
            lines += [_more(more)] * (more > 0) + [""]
        return "\n".join(lines[:-1])

    def _repr_html_(self) -> str:
        parts = [
            f"<h4>{html.escape(name)}</h4>{table.to_html()}{_more(more) if more else ''}"
            for name, (table, more) in self._shown.items()
        ]
        return f"<p>{html.escape(self.title)}</p>{''.join(parts)}"


def _more(count: int) -> str:
    return f"… {count:,} more rows, in the summary's tables"


def summary(
    marg: AfterFit,
    mcmc_or_samples: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    count: int,
    prob: float,
    **options: Any,
) -> Summary:
    """See :meth:`autmarg.MarginalizedModel.summary`."""
    if not 0 < prob < 1:
        raise RequestError(f"summary was called with prob={prob}: expected it between 0 and 1")
    fit = whole_fit(marg, mcmc_or_samples, args, kwargs, method="summary", **options)
    posterior = fit.dataset()
    if fit.program.obstacles:
        every = {k: v for x in posterior.data_vars.values() for k, v in rows_of(x).items()}
        none = estimates({}, prob)
        return Summary(_title(fit), none, none, none, none, estimates(every, prob), 0)
    found = roles(fit.program)
    components = variances(found, posterior)
    by_site = _by_site(found, posterior)
    groups = components.rows | {n: x for n, x in by_site.items() if n not in components.same}
    effects, sizes = _effects(found, components)
    ranked = largest(effects, sizes, count)
    other = _rows(posterior, [n for n in found.other if n not in found.noise], components.left)
    other |= _unseen(found, components, posterior, {*by_site, *components.same})
    return Summary(
        _title(fit),
        estimates(_rows(posterior, found.population), prob),
        estimates(groups, prob),
        estimates(_rows(posterior, found.noise), prob),
        estimates(ranked, prob),
        estimates(other, prob),
        len(effects) - len(ranked),
    )


def _title(fit: WholeFit) -> str:
    chains, draws = next(iter(fit.posterior.values())).shape[:2]
    how = {"integrated out": fit.integrated, "whitened": fit.whitened}
    done = "; ".join(f"{what}: {', '.join(names)}" for what, names in how.items() if names)
    count = f"{chains} chain{'s' if chains > 1 else ''} of {draws:,} draws"
    diverging = fit.mcmc.get_extra_fields().get("diverging") if fit.mcmc is not None else None
    failed = "" if diverging is None else f"; {int(np.sum(diverging)):,} divergences"
    return f"{fit.program.name}: {count}{failed}; {done or 'all sampled'}"


def _rows(
    posterior: Dataset, names: Iterable[str], left: Mapping[str, np.ndarray] | None = None
) -> Rows:
    """Rows of sites, but for elements that a mask does not leave."""
    rows: Rows = {}
    for name in names:
        own = rows_of(posterior[name])
        counts = np.ravel(left[name]) if left and name in left else np.ones(len(own), bool)
        rows |= {k: x for (k, x), kept in zip(own.items(), counts, strict=True) if kept}
    return rows


def _by_site(found: Roles, posterior: Dataset) -> Rows:
    """Scales that multiply standardised effects, and correlation matrices that no prior reads."""
    rows: Rows = {}
    for name in found.multipliers:
        rows |= rows_of(posterior[name])
    for name, is_factor in found.correlations.items():
        matrix = posterior[name].values
        if matrix.ndim != 4:
            continue
        if is_factor:
            matrix = matrix @ np.swapaxes(matrix, -1, -2)
        rows |= correlation_rows(matrix, [f"{name}[{k}]" for k in range(matrix.shape[-1])])
    return rows


def _unseen(found: Roles, components: Variances, posterior: Dataset, shown: set[str]) -> Rows:
    """Elements of covariance parameters that are in no other section, as they are or in a matrix.

    A precision is one, or the correlation of a stationary start.
    """
    names = [
        n
        for n in found.covariance
        if n not in found.noise and (n in components.unseen or n not in found.matrices)
    ]
    return {k: x for k, x in _rows(posterior, names).items() if k not in shown}


def _effects(found: Roles, components: Variances) -> tuple[Rows, dict[str, float]]:
    """Deviations of all elements that a mask leaves in, and the unit in which each is ranked."""
    rows: Rows = {}
    sizes: dict[str, float] = {}
    for name, array in components.deviations.items():
        own = rows_of(array.rename(name))
        unit = components.sizes.get(name, np.ones(array.shape[2:]))
        for (label, draws), size in zip(own.items(), unit.reshape(-1), strict=True):
            if np.isfinite(size):
                rows[label], sizes[label] = draws, float(size) or 1.0
    return rows, sizes
