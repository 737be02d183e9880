"""The constructs that programs are made of: one line each.

Shapes say what an array is: 12 rows, in 4 and in 3 groups, 2 coefficients, tables of 4 × 3.
"""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """An affine expression: its text, and the shapes of its operands.

    An operand ``"s"`` is a positive latent, which stays sampled; "s2" is a vector of two.
    """

    template: str
    operands: tuple[Shape | str, ...]


def _rules(lines: dict[str, tuple[Shape | str, ...]]) -> tuple[Rule, ...]:
    return tuple(Rule(template, operands) for template, operands in lines.items())


# Result shape → expressions of that shape.
RULES: dict[Shape, tuple[Rule, ...]] = {
    (12,): _rules(
        {
            "{0}[g]": ((4,),),
            "{0}[h]": ((3,),),
            "jnp.take({0}, g)": ((4,),),
            "jnp.asarray({0})[g - 4]": ((4,),),
            "{0}[county][g]": ((2,),),
            "{0}[(x > 0).astype(int)]": ((2,),),
            "jnp.asarray({0})[jnp.array(h)] * x": ((3,),),
            "np.eye(4)[g] @ {0}": ((4,),),
            "jax.nn.one_hot(h, 3) @ {0}": ((3,),),
            "jnp.repeat({0}, 3)": ((4,),),
            "jnp.tile({0}, 4)": ((3,),),
            "{0}[g, 1] + 0.5": ((4, 2),),
            "{0}[g][..., 0] + x * {0}[g][..., 1]": ((4, 2),),
            "({0}[g] * Z).sum(-1)": ((4, 2),),
            'jnp.einsum("nk,nk->n", Z, {0}[g])': ((4, 2),),
            "jax.vmap(jnp.vdot)(Z, {0}[g])": ((4, 2),),
            "jnp.sum(Z * jnp.take({0}, g, axis=0), axis=1)": ((4, 2),),
            "Z @ {0}": ((2,),),
            "jnp.dot(Z, {0})": ((2,),),
            "jnp.tensordot(Z, {0}, axes=1)": ((2,),),
            "{0}[0] + {0}[1] * x": ((2,),),
            "{0} * x": ((),),
            "{0} + jnp.zeros(12)": ((),),
            "jnp.broadcast_to({0}, (12,))": ((),),
            "{0}[g, h]": ((4, 3),),
            "{0}.reshape(12)": ((4, 3),),
            "{0}.T.ravel()": ((4, 3),),
            "jnp.reshape({0}, -1)": ((3, 2, 2),),
            "jnp.cumsum({0})": ((12,),),
            "{0}[::-1]": ((12,),),
            "jnp.roll({0}, 2)": ((12,),),
            "jnp.append(jnp.diff({0}), 0.3)": ((12,),),
            "x * {0}": ((12,),),
            "jnp.where(x > 0, {0}, 0.5)": ((12,),),
            "jnp.where(x > 0, {0}, {1})": ((12,), (12,)),
            "jnp.asarray({0}).at[3].set(0.5)": ((12,),),
            "jax.jit(lambda v: 2.0 * v + x)({0})": ((12,),),
            "jnp.vectorize(lambda a, b: a - b)({0}, x)": ((12,),),
            "jnp.concatenate([{0}, {1}])": ((4,), (8,)),
            "jnp.hstack([{0}, {1}[h[:8]]])": ((4,), (3,)),
            "jnp.stack([{0}, {1}, {0}], axis=1).reshape(12)": ((4,), (4,)),
            "{0} * {1}[g]": ((12,), "s4"),
            "jnp.asarray({0}).at[h].add({1}[h])": ((12,), (3,)),
            "jnp.asarray({0}).at[3].set({1})": ((12,), ()),
            "jnp.asarray({0}).at[2:8].multiply(-0.5)": ((12,),),
            "jnp.zeros(12).at[::3].set({0})": ((4,),),
            "jax.ops.segment_sum({0}, h, 12)": ((12,),),
            "jax.lax.dynamic_update_slice(jnp.asarray({0}), jnp.asarray({1}), (5,))": (
                (12,),
                (3,),
            ),
            'jnp.take({0}, g + 1, mode="fill", fill_value=0.5)': ((4,),),
            "jnp.pad({0}, (3, 5))": ((4,),),
            "jnp.interp(x, np.linspace(-1.5, 2.0, 4), {0})": ((4,),),
            "jnp.select([x > 1.0, x > 0.0], [{0}, {1}], 0.2)": ((12,), (12,)),
            "jnp.where({1} > 0.8, {0}, -{0})": ((12,), "s"),
            'jnp.convolve({0}, np.array([0.5, 1.0, -0.3]), mode="same")': ((12,),),
            'jnp.convolve({0}, {1}, mode="same")': ((12,), "s3"),
            "jnp.fft.irfft(jnp.fft.rfft({0}) * np.linspace(1.0, 0.2, 7), 12)": ((12,),),
            "jax.scipy.linalg.solve_triangular(np.eye(12) - 0.5 * np.eye(12, k=-1), {0},"
            " lower=True)": ((12,),),
            "jax.lax.cond(w[0] > 0, lambda v: v[g], lambda v: jnp.exp(v[g]), {0})": ((4,),),
            "jax.lax.switch(1, [jnp.exp, lambda v: 3.0 * v, jnp.sin], {0})": ((12,),),
            "jax.lax.map(lambda i: jnp.asarray({0})[i], g)": ((4,),),
            "jax.lax.fori_loop(0, 3, lambda i, m: m + jnp.asarray({0})[i] * x, jnp.zeros(12))": (
                (3,),
            ),
            "jax.lax.scan(lambda c, e: (0.7 * c + e,) * 2, 0.0, {0})[1]": ((12,),),
            "jax.lax.scan(lambda c, e: (jnp.exp(-{1}) * c + e,) * 2, 0.0, {0})[1]": ((12,), "s"),
            "jax.lax.scan(lambda c, e: (c + e, c), 0.2 * {0}[0], {0}, reverse=True)[1]": ((12,),),
        }
    ),
    (4, 3): _rules(
        {
            "{0} + {1}": ((4, 1), (3,)),
            "{0}[:, None] + {1}": ((4,), (3,)),
            "jnp.expand_dims({0}, 1) * M[0] + {1}": ((4,), ()),
            "{0}.reshape(4, 3)": ((12,),),
            "{0} @ M": ((4, 2),),
            'jnp.einsum("kj,ik->ij", M, {0})': ((4, 2),),
            "jnp.outer(w, {0})": ((3,),),
            "{0}[county]": ((2, 3),),
            "jnp.cumsum({0}, axis=0)": ((4, 3),),
            "jnp.asarray({0}).at[:, 1].add({1})": ((4, 3), (4,)),
            "jax.vmap(lambda row: row - row.mean())({0})": ((4, 3),),
            "jnp.linalg.solve(np.eye(4) + 0.3, {0})": ((4, 3),),
            "jax.lax.scan(lambda c, row: (0.5 * c + row,) * 2, jnp.zeros(3), {0})[1]": ((4, 3),),
        }
    ),
    (3, 2, 2): _rules(
        {
            "{0} + {1} + {2}": ((3, 1, 1), (2, 1), (2,)),
            "{0}.reshape(3, 2, 2)": ((12,),),
            "{0}[:, None, None] + {1}": ((3,), (2, 2)),
            "jnp.transpose({0}, (1, 0, 2))": ((2, 3, 2),),
            "jax.lax.map(lambda a: a.T, {0})": ((3, 2, 2),),
        }
    ),
    (4,): _rules(
        {
            "{0}[county]": ((2,),),
            "W @ {0}": ((2,),),
            "jnp.asarray(W).dot({0})": ((2,),),
            "jnp.append({0}, -{0}.sum())": ((3,),),
            "jnp.concatenate([jnp.zeros(1), {0}])": ((3,),),
            "{0} - {0}.mean()": ((4,),),
            "{0}[:, 0]": ((4, 2),),
            "{0}.sum(-1)": ((4, 2),),
            "jnp.mean({0}, axis=-1)": ((4, 3),),
            "{0} + {1} * w": ((), ()),
            "jnp.flip({0})": ((4,),),
            "jnp.array([{0}, {1}, {0}, 0.1])": ((), ()),
            "{1} * {0}": ((4,), "s4"),
            "jnp.linalg.solve(np.eye(4) + 0.3, {0})": ((4,),),
            "jnp.linalg.solve((1.0 + {1}) * jnp.eye(4) + 0.3, {0})": ((4,), "s"),
            "jax.ops.segment_sum({0}, g, 4)": ((12,),),
            "jnp.zeros(4).at[np.array([3, 1])].set({0})": ((2,),),
            "jnp.insert({0}, 1, {1})": ((3,), ()),
            "jnp.pad({0}, (1, 0))": ((3,),),
        }
    ),
    (3,): _rules(
        {
            "{0}[1:]": ((4,),),
            "jnp.diff({0})": ((4,),),
            "{0} @ M": ((2,),),
            "jnp.stack([{0}, {1}, {0}])": ((), ()),
            "jnp.cumsum({0})": ((3,),),
            "jnp.array([1.0, 0.0, -1.0]) * {0}": ((),),
            "jax.ops.segment_sum({0}, h, 3)": ((12,),),
            'jnp.convolve({0}, np.array([1.0, -0.5]), mode="valid")': ((4,),),
            "jnp.linalg.cholesky({1} * jnp.eye(3) + 0.2) @ {0}": ((3,), "s"),
        }
    ),
    (8,): _rules({"{0}[g[:8]]": ((4,),), "jnp.concatenate([{0}, {0}])": ((4,),)}),
    (2,): _rules(
        {
            "jnp.stack([{0}, {1}])": ((), ()),
            "jnp.array([{0}, 0.5])": ((),),
            "W.T @ {0}": ((4,),),
            "{0}.reshape(2, 2).sum(0)": ((4,),),
            "M @ {0}": ((3,),),
        }
    ),
    (): _rules(
        {
            "{0}[0]": ((2,),),
            "{0}.sum()": ((2,),),
            "jnp.mean({0})": ((4,),),
            "jnp.vdot(w, {0})": ((4,),),
            "jax.lax.fori_loop(0, 4, lambda i, m: m + jnp.asarray({0})[i], 0.0)": ((4,),),
        }
    ),
    (4, 2): _rules(
        {
            "{0} + np.zeros((4, 1))": ((2,),),
            "{0}[:, None] * np.array([1.0, -0.5]) + {1}": ((4,), (2,)),
            "{0}.T": ((2, 4),),
            "{0} @ np.array([[1.0, 0.3], [0.0, 0.8]])": ((4, 2),),
            "{0} @ ({1}[:, None] * np.array([[1.0, 0.0], [0.4, 0.9]])).T": ((4, 2), "s2"),
            "jnp.stack([{0}, {1}], axis=-1)": ((4,), (4,)),
        }
    ),
    (4, 1): _rules({"{0}[:, None]": ((4,),), "{0}.reshape(-1, 1)": ((4,),)}),
}

# Of any shape, with operands of the same shape ("=").
EVERYWHERE = _rules(
    {
        "{0} + {1}": ("=", "="),
        "{0} - {1}": ("=", "="),
        "{0} + {1} ": ("=", ()),
        "0.5 * {0}": ("=",),
        "-{0} / 2.0": ("=",),
        "{0} + 0.3": ("=",),
        "{0} * {1}": ("=", "s"),
        "{0} / {1}": ("=", "s"),
        "jnp.exp(-{1}) * {0}": ("=", "s"),
    }
)

NONLINEAR = (
    "jnp.exp(0.3 * {0})",
    "jnp.tanh({0})",
    "({0}) ** 2",
    "jnp.maximum({0}, 0.1)",
    "jnp.cos({0})",
    "jax.nn.softplus({0})",
    "1.0 / (1.0 + jnp.square({0}))",
    "jnp.sort({0})",
)

POSITIVE = (
    "dist.HalfNormal(1.0)",
    "dist.Exponential(1.5)",
    "dist.Gamma(3.0, 3.0)",
    "dist.InverseGamma(3.0, 2.0)",
    "dist.Uniform(0.3, 2.0)",
    "dist.LogNormal(0.0, 0.4)",
)

# Distributions of ``d`` correlated elements along the last axis → latents that they read: "s" is
# positive, "v" a vector of ``d``, "L" a Cholesky factor. {0} is the mean, where there is one.
_TRIL = "(np.tril(np.full(({d}, {d}), 0.3)) + 0.7 * np.eye({d}))"
_RING = "np.minimum(np.arange({d}), {d} - np.arange({d}))"
CORRELATED: dict[str, tuple[str, ...]] = {
    f"dist.MultivariateNormal({{0}}, {covariance})": reads
    for covariance, reads in {
        f"scale_tril={_TRIL}": (),
        "covariance_matrix=0.4 + 0.6 * np.eye({d})": (),
        "precision_matrix=2.0 * np.eye({d}) + 0.5": (),
        f"scale_tril={{s}} * {_TRIL}": ("s",),
        "covariance_matrix={s} ** 2 + 0.6 * jnp.eye({d})": ("s",),
        "precision_matrix={s} * (2.0 * np.eye({d}) + 0.5)": ("s",),
        "covariance_matrix=jnp.diag({v})": ("v",),
        "scale_tril={v}[:, None] * {L}": ("v", "L"),
        "covariance_matrix=jnp.exp(-(np.subtract.outer(np.arange({d}), np.arange({d})) / {s}) ** 2)"
        " + 0.1 * jnp.eye({d})": ("s",),
    }.items()
} | {
    "dist.LowRankMultivariateNormal({0}, np.linspace(-1.0, 1.0, {d})[:, None], "
    "{s} * np.linspace(0.5, 1.5, {d}))": ("s",),
    f"dist.CirculantNormal({{0}}, covariance_row={{s}} * np.exp(-1.0 * {_RING}))": ("s",),
    "dist.CAR({0}, 0.6, {s}, np.eye({d}, k=1) + np.eye({d}, k=-1))": ("s",),
    "dist.CAR({0}, {s} / (1 + {s}), 2.0, np.eye({d}, k=1) + np.eye({d}, k=-1))": ("s",),
}
# Without a mean.
CORRELATED_FROM_ZERO: dict[str, tuple[str, ...]] = {
    "dist.ZeroSumNormal({s}, ({d},))": ("s",),
    "dist.GaussianRandomWalk({s}, {d})": ("s",),
    "dist.GaussianRandomWalk(0.8, num_steps={d})": (),
}
# Of ``n`` × ``d`` elements, also with a mean and without.
MATRICES: dict[str, tuple[str, ...]] = {
    f"dist.MatrixNormal({{0}}, {{s}} * {_TRIL.replace('{d}', '{n}')}, {_TRIL})": ("s",),
}
MATRICES_FROM_ZERO: dict[str, tuple[str, ...]] = {
    "dist.ZeroSumNormal({s}, ({n}, {d}))": ("s",),
    f"dist.GaussianStateSpace({{n}}, 0.5 * np.eye({{d}}) + 0.2, scale_tril={{s}} * {_TRIL})": (
        "s",
    ),
}
