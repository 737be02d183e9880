"""Pictures of effects: a forest plot with the names of levels, and a shrinkage plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autmarg.analysis.roles import roles
from autmarg.errors import RequestError, did_you_mean
from autmarg.notebook import shown
from autmarg.posterior.inference_data import WholeFit, whole_fit
from autmarg.posterior.stored import needed
from autmarg.posterior.unpooled import unpooled
from autmarg.posterior.variances import variances

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from autmarg.posterior.after_fit import AfterFit

_PANELS = 8
_INK, _PALE, _LIGHT = "#2a6f97", "#9cc3d8", "#c1666b"
_ROW = 0.2  # inches


@dataclass(frozen=True, eq=False)
class Panel:
    """Effects of one kind, one a level.

    Attributes:
        title: of the site, with its term where it has several.
        levels: names, one for each effect.
        draws: [draws, levels].
        centre: prior mean that the levels share, or None where they differ in it.
        alone: estimates without pooling [levels], or None.
    """

    title: str
    levels: np.ndarray
    draws: np.ndarray
    centre: float | None
    alone: np.ndarray | None

    def chosen(self, count: int) -> Panel:
        """The ``count`` levels farthest from the centre, in the order of their means."""
        mean = self.draws.mean(0)
        far = np.argsort(-np.abs(mean - (mean.mean() if self.centre is None else self.centre)))
        index = far[:count][np.argsort(mean[far[:count]], kind="stable")]
        more = f" ({count} of {len(mean)} levels)" if count < len(mean) else ""
        alone = None if self.alone is None else self.alone[index]
        title = f"{self.title}{more}"
        return Panel(title, self.levels[index], self.draws[:, index], self.centre, alone)


def plot_effects(
    marg: AfterFit,
    mcmc_or_samples: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    sites: Sequence[str] | str | None,
    prob: float,
    levels: int,
    shrinkage: bool,
    **options: Any,
) -> Figure:
    """See :meth:`autmarg.MarginalizedModel.plot_effects` and ``plot_shrinkage``."""
    method = "plot_shrinkage" if shrinkage else "plot_effects"
    needed("matplotlib", method)
    fit = whole_fit(marg, mcmc_or_samples, args, kwargs, method=method, **options)
    panels = [
        panel for site in _sites(fit, sites, method) for panel in _panels(fit, site, shrinkage)
    ]
    if len(panels) > _PANELS:
        raise RequestError(
            f"{method} would draw {len(panels)} panels, {[p.title for p in panels[:3]]} and so on: "
            f"expected at most {_PANELS}; name some sites with sites=[…]"
        )
    return _figure([panel.chosen(levels) for panel in panels], prob)


def _sites(fit: WholeFit, sites: Sequence[str] | str | None, method: str) -> list[str]:
    """The sites asked for, or all effects in their own units."""
    latents = {n.name: n for n in fit.program.latents}
    if sites is None:
        found = roles(fit.program)
        names = [n for n in found.effects if n not in found.standardised and latents[n].shape]
        if not names:
            raise RequestError(
                f"'{fit.program.name}' has no effects that vary by level: name sites with "
                f"sites=[…], expected of {sorted(n for n in latents if latents[n].shape)}"
            )
        return names
    names = [sites] if isinstance(sites, str) else list(sites)
    known = latents if method == "plot_shrinkage" else fit.posterior
    for name in names:
        if name not in known or fit.posterior[name].ndim < 3:
            raise RequestError(
                f"{method} was asked for '{name}', which is no site with elements"
                f"{did_you_mean(name, known)}: expected some of {sorted(known)}"
            )
    return names


def _panels(fit: WholeFit, site: str, shrinkage: bool) -> list[Panel]:
    """Levels along the site's first axis, a panel for each element of the others."""
    array = fit.dataset([site])[site]
    levels, *terms = array.dims[2:]
    draws = array.values.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
    centre = _centres(fit, site)
    alone = unpooled(fit, site) if shrinkage else None
    shape = tuple(array.sizes[d] for d in terms)
    found = []
    for index in np.ndindex(*shape):
        inside = ", ".join(
            str(array.coords[d].values[k]) for d, k in zip(terms, index, strict=True)
        )
        own = None if centre is None else centre[(slice(None), *index)]
        same = own is not None and np.ptp(own) <= 1e-9 * (1 + np.abs(own).max())
        found.append(
            Panel(
                f"{site}: {inside}" if inside else site,
                array.coords[levels].values,
                draws[(..., *index)],
                float(own[0]) if own is not None and same else None,
                None if alone is None else alone[(slice(None), *index)],
            )
        )
    return found


def _centres(fit: WholeFit, site: str) -> np.ndarray | None:
    """Posterior means of the prior means of an effect's elements; None where it has none."""
    found = roles(fit.program)
    if found.effects.get(site) is None:
        return None
    posterior = fit.dataset([n.name for n in fit.program.latents])
    deviation = variances(found, posterior).deviations[site]
    return np.asarray((posterior[site] - deviation).mean(("chain", "draw")))


def _figure(panels: list[Panel], prob: float) -> Figure:
    from matplotlib.figure import Figure

    height = 1.1 + _ROW * max(len(panel.levels) for panel in panels)
    width = 1.2 + 3.2 * len(panels)
    figure = Figure(figsize=(max(width, 4.6), max(height, 2.4)), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        _draw(axes, panel, prob)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return shown(figure)


def _draw(axes: Axes, panel: Panel, prob: float) -> None:
    places = np.arange(len(panel.levels))
    mean = panel.draws.mean(0)
    outer = np.quantile(panel.draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    if panel.centre is not None:
        axes.axvline(panel.centre, color="#999999", lw=0.8, ls="--", zorder=0)
    if panel.alone is None:
        inner = np.quantile(panel.draws, [0.25, 0.75], axis=0)
        axes.hlines(places, *outer, color=_PALE, lw=1.4, label=f"{prob:.0%} interval")
        axes.hlines(places, *inner, color=_INK, lw=3.0, label="50% interval")
    else:
        axes.hlines(places, *outer, color=_PALE, lw=1.0, label=f"{prob:.0%} interval")
        axes.hlines(places, panel.alone, mean, color=_LIGHT, lw=1.0)
        axes.plot(
            panel.alone, places, "o", mfc="white", mec=_LIGHT, ms=5, ls="",
            label="the level alone (no pooling)",
        )  # fmt: skip
    axes.plot(mean, places, "o", color=_INK, mec="white", ms=5, ls="", label="posterior mean")
    axes.set_yticks(places, [str(name) for name in panel.levels], fontsize=8)
    axes.set_ylim(-0.7, len(places) - 0.3)
    axes.set_title(panel.title, fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


__all__ = ["plot_effects"]
