"""The exactness oracle: log p(θ, u, y) = log p_marg(θ, y) + log p_recover(u | θ, y).

Left is the user's own program evaluated by NumPyro, right is ours. No Monte Carlo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import init_to_sample
from numpyro.infer.util import log_density

from autmarg.driver import Compiled, MarginalizedModel, Model, transform
from autmarg.errors import ExactnessError, ModelError
from autmarg.ir.nodes import Observe, Sample

FAR = 30.0  # conditional standard deviations by which the far points are away
ROUNDINGS = 4.0  # of the program's own parameters, which no evaluation can be held to undercut
TRIES = 4  # of moving them
_SIGNS = np.array([-1, 1], np.int8)


@dataclass(frozen=True)
class Report:
    """Errors of the exactness identity in nats.

    Attributes:
        errors: one at each recovery draw, then one far from each; left out are points at which
            the source's own log-density is not finite.
        log_densities: log p(θ, u, y) of the source at the same points.
        tolerance: what an error may be: 1e-9 (1e-4 in float32) · (rows + dimensions).
        limits: what each may be: the tolerance, or where it is more, what rounding the source's
            own parameters does to its log-density (see :func:`verify`).
        left_out: how many points those are.
        rows, dimensions: observed elements, and dimensions integrated out or sampled.
        integrated: the sites integrated out.
    """

    errors: tuple[float, ...]
    log_densities: tuple[float, ...]
    tolerance: float
    limits: tuple[float, ...]
    left_out: int
    rows: int
    dimensions: int
    integrated: tuple[str, ...]

    @property
    def worst(self) -> float:
        """The largest absolute error (infinite where one is not a number)."""
        return max(self._sizes, default=0.0)

    @property
    def exact(self) -> bool:
        """Whether every error is within its limit, at one point at least."""
        within = [e <= limit for e, limit in zip(self._sizes, self.limits, strict=True)]
        return bool(within) and all(within)

    @property
    def _sizes(self) -> list[float]:
        return [abs(e) if np.isfinite(e) else np.inf for e in self.errors]

    def __str__(self) -> str:
        gone = ", ".join(self.integrated) or "nothing"
        points = list(zip(self._sizes, self.limits, strict=True))
        plain = [error for error, limit in points if limit <= self.tolerance]
        rounded = [(error, limit) for error, limit in points if limit > self.tolerance]
        lines = [
            f"verify: {'exact' if self.exact else 'NOT EXACT'}; integrated out: {gone}",
            f"  largest error {max(plain, default=0.0):.2e} nats over {len(plain)} points, "
            f"tolerance {self.tolerance:.2e} ({self.rows} rows, {self.dimensions} dimensions)",
        ]
        if rounded:
            error, limit = max(rounded, key=lambda pair: pair[0] / pair[1])
            lines.append(
                f"  {error:.2e} nats at worst over {len(rounded)} points where log p is so large "
                f"that the model's own rounding is the limit, {limit:.2e}"
            )
        if self.left_out:
            lines.append(f"  {self.left_out} points left out: log p of the model is not finite")
        return "\n".join(lines)


def verify(
    model: Model | MarginalizedModel,
    *args: Any,
    points: int = 20,
    seed: int = 0,
    marginalize: str | Sequence[str] = "auto",
    keep: Sequence[str] = (),
    reparameterize: str | Sequence[str] = "auto",
    kwargs: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Report:
    """Check on a model and its data that nothing changed.

    At ``points`` random values of the kept sites (prior draws; uniform on (-2, 2) in unconstrained
    space where a prior is improper) the integrated sites are drawn by recovery, with the
    log-density that the sampler itself returns from its noise, and then put 30 conditional standard
    deviations away, where the conditional's formula is checked.

    Tolerance: 1e-9 · (rows + dimensions) nats in float64, 1e-4 · in float32 (or where a
    distribution's parameters are float32). Where log p is so
    large that the model itself is not determined to that, the limit is four times what rounding its
    own numbers does to it: latent values x, and parameters and values of the elements i of its
    sites, each moved by one step ε up or down at random (the most of four tries),

        4 (|log p(x ± εx) - log p(x)| + Σ_i |log p_i(± ε) - log p_i| + ε Σ_i |log p_i|).

    Args:
        model: the source, or a transformed model (then its own options hold).
        args, kwargs: what the model is called with, data included.
        points: number of random points.
        seed: of the random points.
        marginalize, keep, reparameterize: as for ``transform``.
        quiet: do not print.

    Returns:
        The errors in nats, and what each may be.

    Raises:
        ExactnessError: an error exceeds its limit; ``report`` has the numbers.
        ModelError: there is no point at which the source's log-density is finite.
    """
    marg = (
        model
        if isinstance(model, MarginalizedModel)
        else transform(model, marginalize=marginalize, keep=keep, reparameterize=reparameterize)
    )
    kwargs = dict(kwargs or {})
    compiled, traced = marg.compiled(*args, **kwargs)
    found, impossible = _errors(marg, compiled, traced, args, kwargs, points, seed)
    report = _report(compiled, found)
    if not report.errors:
        raise ModelError(
            f"there is nothing to compare: the log-density of '{marg.__name__}' is not finite at "
            f"any of {report.left_out} points, because of {_places(compiled, impossible)}. "
            "Expected data that prior draws of the latents could give."
        )
    if not quiet:
        print(report)
    if not report.exact:
        raise ExactnessError(str(report), report)
    return report


def _errors(
    marg: MarginalizedModel,
    compiled: Compiled,
    traced: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    points: int,
    seed: int,
) -> tuple[np.ndarray, list[str]]:
    """[4, 2, points]: errors, log-densities of the source, their rounding, and whether the source
    has one; at draws, and far from them. And the sites whose density is not finite at some point.
    """
    recovery = compiled.recovery
    noncentred = recovery.noncentred
    noise = {n.name: n.base.name for n in noncentred}
    names = [*compiled.plan.kept, *noise.values(), *(n.name for n in recovery.inputs)]

    def kept(key: Any) -> dict[str, Any]:
        model = handlers.substitute(handlers.seed(marg, key), substitute_fn=init_to_sample())
        with handlers.block():
            sites = handlers.trace(model).get_trace(*args, **kwargs)
        return {n: sites[n]["value"] for n in names}

    # Seeded, for models that draw keys of their own; then both sides draw the same.
    def density(values: dict[str, Any]) -> Any:
        return log_density(handlers.seed(marg.source, 0), args, kwargs, values)

    def source(values: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """log p(θ, u, y), its rounding, and whether it is finite (or we gave it no numbers); and
        whether that of each site is."""
        value, trace = density(values)
        numbers = jnp.asarray([jnp.isfinite(x).all() for x in values.values()])
        finite = jnp.isfinite(value) | ~numbers.all()
        real = {name: jnp.asarray(x) for name, x in values.items() if _is_real(x)}
        whole = _Terms(lambda some: density({**values, **some})[0], real, value)
        sites = {n: _terms(site) for n, site in trace.items() if site["type"] == "sample"}
        each = {name: jnp.isfinite(terms.values).all() for name, terms in sites.items()}
        return jnp.stack([value, _rounding(whole, list(sites.values())), finite]), each

    def marginal(values: dict[str, Any]) -> Any:
        """The transformed model's, at the sites that it samples, as a density of the user's."""
        met = {name: value for name, value in values.items() if name not in noise}
        slopes = [n.log_jacobian for n in noncentred]
        logs = compiled.program.tape.evaluate(slopes, {**traced, **values})
        return log_density(handlers.seed(marg, 0), args, kwargs, met)[0] - sum(logs)

    @jax.jit
    def at(key: Any) -> Any:
        first, second, third = jax.random.split(key, 3)
        theta = kept(first)
        drawn, conditional = recovery.draw_with_density(second, theta, traced)
        far, _ = recovery.draw_with_density(third, theta, traced, spread=FAR)
        away = recovery.log_conditional({**traced, **theta}, far)
        pair = jax.tree.map(lambda *u: jnp.stack(u), drawn, far)
        left, each = jax.lax.map(lambda k: source({**theta, **_entry(pair, k)}), jnp.arange(2))
        errors = left[:, 0] - marginal(theta) - jnp.stack([conditional, away])
        return jnp.stack([errors, *left.T]), each

    found, flags = zip(*map(at, jax.random.split(jax.random.key(seed), points)), strict=True)
    impossible = [name for name in flags[0] if not all(one[name].all() for one in flags)]
    return np.stack([np.asarray(x, np.float64) for x in found], axis=2), impossible


def _places(compiled: Compiled, names: list[str]) -> str:
    """Names of sites, with the user's lines."""
    places = {n.name: n.place for n in compiled.plan.program.nodes}
    return ", ".join(f"'{name}' ({places.get(name)})" for name in names)


def _entry(arrays: Any, k: Any) -> Any:
    return jax.tree.map(lambda x: x[k], arrays)


class _Terms(NamedTuple):
    """Log-densities ``values`` as a ``function`` of ``numbers``, floats only."""

    function: Callable[[Any], Any]
    numbers: Any
    values: Any


def _terms(site: dict[str, Any]) -> _Terms:
    """A site's log-density as a function of its parameters and its value."""
    leaves, structure = jax.tree.flatten((site["fn"], site["value"]))
    real = [k for k, leaf in enumerate(leaves) if _is_real(leaf)]

    def log_prob(numbers: list[Any]) -> Any:
        filled = list(leaves)
        for k, number in zip(real, numbers, strict=True):
            filled[k] = number
        fn, value = jax.tree.unflatten(structure, filled)
        terms = fn.log_prob(value)
        return terms if site["scale"] is None else terms * site["scale"]

    numbers = [jnp.asarray(leaves[k]) for k in real]
    return _Terms(log_prob, numbers, log_prob(numbers))


def _rounding(whole: _Terms, sites: list[_Terms]) -> Any:
    """What rounding does to a log-density: see :func:`verify`.

    All numbers move up or down by one step at random, a few times over: derivatives, which some
    functions lack, are not needed, and the functions' own rounding counts.
    """
    parts = [whole, *sites]
    numbers = [part.numbers for part in parts]
    rng = np.random.default_rng(0)
    signs = jax.tree.map(lambda x: rng.choice(_SIGNS, (TRIES, *x.shape)), numbers)

    def move(x: Any, sign: Any) -> Any:
        return x * (1 + jnp.finfo(x.dtype).eps * sign.astype(x.dtype))

    def once(signs: Any) -> Any:
        moved = jax.tree.map(move, numbers, signs)
        changes = (p.function(x) - p.values for p, x in zip(parts, moved, strict=True))
        return sum(jnp.abs(change).sum() for change in changes)

    own = sum(jnp.finfo(t.values.dtype).eps * jnp.abs(t.values).sum() for t in sites)
    return own + jnp.max(jax.lax.map(once, signs))


def _is_real(leaf: Any) -> bool:
    number = isinstance(leaf, jax.Array | np.ndarray | float)
    return number and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _report(compiled: Compiled, found: np.ndarray) -> Report:
    program = compiled.plan.program
    rows = sum(n.size for n in program.nodes if isinstance(n, Observe))
    dimensions = sum(compiled.plan.dimensions.values())
    parameters = [v for n in program.nodes if isinstance(n, Sample) for v in n.distribution.values]
    # NumPyro computes a density in the precision of the distribution's own parameters.
    single = any(program.tape.avals[v].dtype == jnp.float32 for v in parameters)
    rate = 1e-9 if jax.config.jax_enable_x64 and not single else 1e-4  # pyright: ignore
    tolerance = rate * (rows + dimensions)
    errors, values, rounding, finite = (x.ravel() for x in found)
    limits = np.maximum(ROUNDINGS * np.nan_to_num(rounding, posinf=0.0), tolerance)
    used = finite.astype(bool)
    return Report(
        tuple(errors[used].tolist()),
        tuple(values[used].tolist()),
        tolerance,
        tuple(limits[used].tolist()),
        int((~used).sum()),
        rows,
        dimensions,
        compiled.plan.integrated,
    )
