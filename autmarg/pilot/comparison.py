"""What a pilot found, as a value: one row for each program, a table, a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from autmarg.plan.prediction import Prediction, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EQUAL = 1.5  # rates of one chain each that differ by less are not told apart
_HEADER = (
    "program", "sampled", "compile s", "leapfrogs/draw", "divergences", "min ESS", "at", "ESS/draw",
    "ESS/1,000 gradients", "gradient (predicted)", "ESS/s (predicted)", "s for 1,000 ESS",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """The chain of one program.

    Attributes:
        dimensions: that NUTS moves in.
        warmup, draws: steps taken; fewer than asked for if ``cut``.
        cut: "", or the phase in which the time was up.
        leapfrogs: steps of all draws, each of them a gradient.
        divergences: among the draws.
        ess: the least bulk ESS over the elements of all latents of the source; nan if there are
            fewer than four draws.
        site: where it is.
        compile_seconds: of planning, of the initial point, and of the compilation of the loop.
        warmup_seconds, sampling_seconds: of the steps.
        recovery_seconds: of the draws of what was integrated out.
    """

    dimensions: int
    warmup: int
    draws: int
    cut: str
    leapfrogs: int
    divergences: int
    ess: float
    site: str
    compile_seconds: float
    warmup_seconds: float
    sampling_seconds: float
    recovery_seconds: float

    @property
    def leapfrogs_per_draw(self) -> float:
        """Leapfrog steps for each draw."""
        return _ratio(self.leapfrogs, self.draws)

    @property
    def ess_per_draw(self) -> float:
        """Effective draws for each draw."""
        return _ratio(self.ess, self.draws)

    @property
    def ess_per_1000_gradients(self) -> float:
        """Effective draws for each thousand gradients; a busy machine leaves it as it is."""
        return _ratio(1000 * self.ess, self.leapfrogs)

    @property
    def ess_per_second(self) -> float:
        """Effective draws for each second of sampling.

        Recovery is not counted: a call takes some hundredths of a second for however few draws,
        which would be most of a pilot's time and is little of a run's.
        """
        return _ratio(self.ess, self.sampling_seconds)

    @property
    def seconds_for_1000(self) -> float:
        """Seconds for 1,000 effective draws, with compilation, warm-up and recovery."""
        run = _ratio(1000 * (self.sampling_seconds + self.recovery_seconds), self.ess)
        return self.compile_seconds + self.warmup_seconds + run

    @property
    def gradient_seconds(self) -> float:
        """Seconds of a leapfrog step: a gradient with what NUTS does besides."""
        return _ratio(self.sampling_seconds, self.leapfrogs)


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")


@dataclass(frozen=True)
class Pilot:
    """One program of a comparison.

    Attributes:
        program: its name.
        integrated, noncentred: names of the sites that are integrated out, and of those that are
            sampled through standard noise.
        predicted: what its plan predicts; None if nothing could be planned.
        measured: its chain, or that of ``same``; None if ``note`` says why there is none.
        same: the name of an earlier program that is the same by its plan, or "".
        note: why it was left out or stopped, or "".
        whitened: names of the sites that are functions of standard noise.
    """

    program: str
    integrated: tuple[str, ...] = ()
    noncentred: tuple[str, ...] = ()
    predicted: Prediction | None = None
    measured: Measured | None = None
    same: str = ""
    note: str = ""
    whitened: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether anything is integrated out or whitened."""
        return bool(self.integrated or self.whitened)

    @property
    def rate(self) -> float | None:
        """Effective draws for each second, or None where that is not known."""
        if self.measured is None or not self.measured.ess_per_second > 0:
            return None
        return self.measured.ess_per_second


@dataclass(frozen=True)
class Comparison:
    """What :func:`autmarg.compare` returns; ``print`` it.

    Attributes:
        model: the model's name.
        pilots: one for each program, in the order asked for.
        warmup, draws: steps asked for.
    """

    model: str
    pilots: tuple[Pilot, ...]
    warmup: int
    draws: int

    def __getitem__(self, program: str) -> Pilot:
        """The pilot of a program, by its name."""
        for pilot in self.pilots:
            if pilot.program == program:
                return pilot
        raise KeyError(program)

    @property
    def verdict(self) -> str:
        """In one sentence, whether autmarg pays on this model."""
        rates = {p.program: p.rate for p in self.pilots if p.rate is not None}
        ours = {n: r for n, r in rates.items() if self[n].ours}
        others = {n: r for n, r in rates.items() if n not in ours}
        if not ours:
            if not any(p.ours for p in self.pilots):
                return "nothing is integrated out of this model: see plan(…) for the reasons"
            return "no program that integrates out was measured"
        best = max(ours, key=ours.__getitem__)
        if not others:
            return f"'{best}' has the most ESS/s; no program without integration was measured"
        other = max(others, key=others.__getitem__)
        what = "integrating out" if self[best].integrated else "whitening"
        return _sentence(what, best, ours[best], other, others[other])

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict for each program, for a data frame or a CSV file."""
        return [_row(pilot) for pilot in self.pilots]

    def figure(self) -> Figure:
        """A matplotlib figure: ESS for each 1,000 gradients, gradient times, ESS for each second.

        Raises:
            RequestError: matplotlib is not installed, or nothing was measured.
        """
        from autmarg.pilot.figure import figure

        return figure(self)

    def __str__(self) -> str:
        from autmarg.report.table import table

        lines = [f"comparison of '{self.model}': {self.verdict}", ""]
        lines += table(_HEADER, [_cells(pilot) for pilot in self.pilots])
        lines += ["", *_notes(self.pilots), *self._legend()]
        return "\n".join(lines)

    def _legend(self) -> list[str]:
        return [
            f"  one chain each, {self.warmup} warm-up steps and {self.draws} draws: good to a "
            "factor of 1.5 or so",
            "  min ESS: bulk ESS (numpyro.diagnostics, rank-normalised split chain), least over "
            "all latents of the source",
            "  gradient, ESS/s: by the time of sampling alone; s for 1,000 ESS: with compilation, "
            "warm-up and recovery",
        ]

    def _repr_html_(self) -> str:
        style = "padding:2px 8px;text-align:left;border-bottom:1px solid #8884"
        head = "".join(f'<th style="{style}">{escape(name)}</th>' for name in _HEADER)
        body = "".join(
            "<tr>" + "".join(f'<td style="{style}">{escape(c)}</td>' for c in cells) + "</tr>"
            for cells in map(_cells, self.pilots)
        )
        notes = "<br>".join(escape(line) for line in [*_notes(self.pilots), *self._legend()])
        return (
            f"<p><b>{escape(self.model)}</b>: {escape(self.verdict)}</p>"
            f'<div style="overflow-x:auto"><table><tr>{head}</tr>{body}</table></div>'
            f"<p><small>{notes}</small></p>"
        )


def _sentence(what: str, ours: str, rate: float, other: str, best: float) -> str:
    if rate > _EQUAL * best:
        times = f"{rate / best:.1f}" if rate < 10 * best else f"{rate / best:,.0f}"
        return f"{what} pays: '{ours}' has {times} times the ESS/s of '{other}'"
    if best > _EQUAL * rate:
        return f"{what} does not pay: '{other}' has {best / rate:.1f} times the ESS/s"
    return f"'{ours}' and '{other}' are equal within the error of one chain each"


def _notes(pilots: Sequence[Pilot]) -> list[str]:
    lines = [f"  {p.program}: {p.note}" for p in pilots if p.note]
    for p in pilots:
        gone = ", ".join(p.integrated)
        noise = ", ".join(p.noncentred)
        parts = [f"integrates out {gone}"] * bool(gone) + [f"non-centres {noise}"] * bool(noise)
        parts += [f"whitens {', '.join(p.whitened)}"] * bool(p.whitened)
        if parts and not p.same:
            lines.append(f"  {p.program}: {'; '.join(parts)}")
    return lines


def _cells(pilot: Pilot) -> tuple[str, ...]:
    m, predicted = pilot.measured, pilot.predicted
    name = f"{pilot.program} (= {pilot.same})" if pilot.same else pilot.program
    guess = "" if predicted is None else f" ({in_words(predicted.gradient)})"
    rate = "" if predicted is None else f" ({_number(1 / predicted.draw)})"
    if m is None:
        return (name, *["–"] * 8, f"–{guess}", f"–{rate}", "–")
    step = in_words(m.gradient_seconds) if m.leapfrogs else "–"
    return (
        name, f"{m.dimensions:,}", _number(m.compile_seconds), _number(m.leapfrogs_per_draw),
        f"{m.divergences:,}", _number(m.ess), m.site or "–", _number(m.ess_per_draw),
        _number(m.ess_per_1000_gradients), f"{step}{guess}", f"{_number(m.ess_per_second)}{rate}",
        _number(m.seconds_for_1000),
    )  # fmt: skip


def _number(value: float) -> str:
    if value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _row(pilot: Pilot) -> dict[str, Any]:
    m, predicted = pilot.measured, pilot.predicted
    row: dict[str, Any] = {
        "program": pilot.program,
        "same": pilot.same,
        "note": pilot.note,
        "integrated": " ".join(pilot.integrated),
        "noncentred": " ".join(pilot.noncentred),
        "whitened": " ".join(pilot.whitened),
        "predicted_gradient_s": None if predicted is None else predicted.gradient,
        "predicted_ess_per_s": None if predicted is None else 1 / predicted.draw,
    }
    names = [*Measured.__dataclass_fields__, *_DERIVED]
    own = {} if m is None else asdict(m) | {name: getattr(m, name) for name in _DERIVED}
    return row | {name: own.get(name) for name in names}


_DERIVED = (
    "leapfrogs_per_draw", "ess_per_draw", "ess_per_1000_gradients", "ess_per_second",
    "gradient_seconds", "seconds_for_1000",
)  # fmt: skip

__all__ = ["Comparison", "Measured", "Pilot"]
