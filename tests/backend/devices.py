"""What eight devices of one host find, a line each; ``test_devices`` runs and reads it."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.sharding import NamedSharding, PartitionSpec
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

import autmarg

ROWS = 96 * jax.device_count()
_RNG = np.random.default_rng(0)
GROUP = _RNG.permutation(np.arange(ROWS) % 12).astype(np.int32)
X, Y = _RNG.normal(size=ROWS), 3 + _RNG.normal(size=ROWS)
POINT = {"c": jnp.array([0.1, 0.2]), "tau": jnp.array(0.7)}
DISTRIBUTIONAL = {**POINT, "s": jnp.linspace(-0.5, 0.5, 12)}
COMMUNICATION = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def homogeneous(group, x, y, noise=lambda c, x, group: jnp.exp(c[0])):
    """Effects, a slope, and noise of one scale; the covariate is standardised in the model."""
    x = (x - x.mean()) / x.std()
    b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
    c = numpyro.sample("c", dist.Normal(0, 1).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([12]).to_event(1))
    mean = b[0] + b[1] * x + u[group]
    numpyro.sample("y", dist.Normal(mean, noise(c, x, group)), obs=y)


def heteroscedastic(group, x, y):
    """Noise that depends on the covariate of the row."""
    homogeneous(group, x, y, lambda c, x, group: jnp.exp(c[0] + c[1] * x))


def distributional(group, x, y):
    """Noise that depends on the covariate and on effects that are sampled."""
    s = numpyro.sample("s", dist.Normal(0, 0.3).expand([12]).to_event(1))
    homogeneous(group, x, y, lambda c, x, group: jnp.exp(c[0] + c[1] * x + s[group]))


def main() -> None:
    """Print what is found."""
    print(f"devices: {jax.device_count()}")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    together = (GROUP, X, Y)
    spread = tuple(jax.device_put(a, rows) for a in together)
    for model in (homogeneous, heteroscedastic, distributional):
        point = DISTRIBUTIONAL if model is distributional else POINT
        marg = autmarg.transform(model, marginalize="all", reparameterize="off")
        apart, whole = (compiled(marg, args, point) for args in (spread, together))
        print(f"{model.__name__} error: {difference(apart(point), whole(point))}")
        print(f"{model.__name__} communication: {communication(apart)}")
    jax.config.update("jax_disable_most_optimizations", True)  # each program now runs once
    recovered(spread, together)
    chains(together)


def compiled(marg: Any, args: tuple[Any, ...], point: Any) -> Any:
    """The compiled value and gradient of the log-density."""
    density = jax.value_and_grad(lambda point: log_density(marg, args, {}, point)[0])
    return jax.jit(density).lower(point).compile()


def communication(program: Any) -> str:
    """Names of the instructions of a compiled program in which devices talk, sorted."""
    return " ".join(sorted(re.findall(rf" ({COMMUNICATION})(?:-start)?\(", program.as_text())))


def difference(left: Any, right: Any) -> float:
    """The largest relative difference of two trees of arrays."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) / np.asarray(b) - 1))) for a, b in pairs)


def recovered(*arguments: tuple[Any, ...]) -> None:
    """Conditional moments and draws are those of data in one place."""
    marg = autmarg.transform(distributional, marginalize="all", reparameterize="off")
    draws = {name: jnp.stack([value, value * 1.1]) for name, value in DISTRIBUTIONAL.items()}
    for moments in (True, False):
        found = [marg.recover(jax.random.key(1), draws, *a, moments=moments) for a in arguments]
        print(f"{'moments' if moments else 'draws'} error: {difference(*found)}")


def chains(args: tuple[Any, ...]) -> None:
    """Parallel chains are the sequential ones."""

    def draws(method: str) -> Any:
        kernel = NUTS(autmarg.transform(homogeneous), max_tree_depth=4)
        mcmc = MCMC(
            kernel, num_warmup=5, num_samples=5, num_chains=4, chain_method=method,
            progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(0), *args)
        return mcmc.get_samples(group_by_chain=True)

    parallel = draws("parallel")
    devices = {s.device for s in parallel["tau"].addressable_shards}
    print(f"chains on devices: {len(devices)}")
    print(f"chains error: {difference(draws('sequential'), parallel)}")


if __name__ == "__main__":
    main()
