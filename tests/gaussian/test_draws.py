"""Draws as functions of the point and of their noise, and the solver that makes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.gaussian.rotations import rotated_back, triangularise
from tests.gaussian.stage_models import STAGES, planned
from tests.support.lanes import lanes

pytestmark = pytest.mark.usefixtures("quick_compilation")
POINT = np.array([0.8, 1.1, 0.6])


@pytest.fixture(params=lanes([*STAGES, "triangular root"], quick=("batched blocks",)))
def group(request, monkeypatch):
    """The linear Gaussian part of each stage's model, and its schedule."""
    name = request.param
    marg = planned("dense root" if name == "triangular root" else name, monkeypatch)
    (group,) = marg.plan().groups
    schedule = group.schedule.exact if name == "triangular root" else group.schedule
    assert schedule is not None
    return group, schedule


def at(group, theta):
    names = "qts"
    return group.system.point(dict(zip(names, theta, strict=True)))


def noise_for(group):
    return jnp.asarray(np.random.default_rng(1).normal(size=group.schedule.form.columns))


def test_solver(group):
    """G by second derivatives of the energy: what the solver solves, and log|G|."""
    system, schedule = group
    point, noise = at(system, POINT), noise_for(system)

    def energy(z):
        return 0.5 * schedule._squares(point, z)

    @jax.jit
    def run(rhs):
        solver = schedule._rooted(point)
        half = solver.half_solve(rhs)
        return solver.solve(rhs), half, solver.draw(jnp.zeros_like(rhs)), solver.log_det

    matrix = jax.jit(jax.hessian(energy))(jnp.zeros_like(noise))
    slope = jax.grad(energy)(jnp.zeros_like(noise))
    solved, half, mean, log_det = run(noise)
    np.testing.assert_allclose(matrix @ solved, noise, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(half @ half, noise @ solved, rtol=1e-10)
    np.testing.assert_allclose(matrix @ mean, -slope, rtol=1e-9, atol=1e-9 * jnp.abs(slope).max())
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix)[1], rtol=1e-10, atol=1e-10)


def test_draws_have_derivatives(group):
    """In reverse mode, of the point and of the noise, inside a scan; central differences."""
    system, schedule = group
    noise = noise_for(system)
    direction = jnp.asarray(np.random.default_rng(2).normal(size=len(noise)))

    def read(theta, xi):
        values = schedule.draw(at(system, theta), xi)[0]
        flat = jnp.concatenate([values[name] for name in sorted(values)])
        return jnp.sin(flat).sum()

    def scanned(theta, xi):
        return jax.lax.scan(lambda total, _: (total + read(theta, xi), None), 0.0, None, length=2)[
            0
        ]

    theta, step = jnp.asarray(POINT), 1e-5
    found, by_noise = jax.jit(jax.grad(scanned, argnums=(0, 1)))(theta, noise)
    moved = jax.jit(jax.vmap(read))
    near = step * jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
    values = moved(theta + near, jnp.broadcast_to(noise, (6, len(noise))))
    np.testing.assert_allclose(
        found / 2, (values[:3] - values[3:]) / (2 * step), rtol=1e-6, atol=1e-6
    )
    values = moved(jnp.stack([theta, theta]), noise + step * jnp.stack([direction, -direction]))
    change = (values[0] - values[1]) / (2 * step)
    np.testing.assert_allclose(by_noise @ direction / 2, change, rtol=1e-6, atol=1e-6)


def test_draws_in_a_single_precision_session(group):
    """Values and gradients, inside a while loop, are those of double precision."""
    system, _ = group
    noise = noise_for(system)
    density = GaussianMarginal(system.system, system.schedule, system.variances)

    def read(theta, xi):
        values, _ = density.drawn(dict(zip("qts", theta, strict=True)), xi)
        return sum(jnp.sum(value**2) for value in values.values())

    def looped(theta, xi):
        def more(state):
            count, total = state
            return count + 1, total + read(theta, xi)

        return jax.lax.while_loop(lambda state: state[0] < 2, more, (0, 0.0 * theta[0]))[1]

    def both(theta, xi):
        return looped(theta, xi), jax.grad(read)(theta, xi)

    double = jax.jit(both)(jnp.asarray(POINT), noise)
    with jax.enable_x64(False):
        single = np.float32(POINT), np.float32(noise)
        found = jax.jit(both)(*single)
    np.testing.assert_allclose(found[0], double[0], rtol=3e-6)
    np.testing.assert_allclose(found[1], double[1], rtol=3e-5, atol=3e-5 * np.abs(double[1]).max())


@pytest.mark.parametrize(
    "size", [(2, 5), *(pytest.param(s, marks=pytest.mark.slow) for s in [(1, 1), (11, 13)])]
)
def test_rotation(size):
    """[S, 0] U of orthogonal U, with a row of zeros and one that is its own image."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(*size, 4))
    matrix[0, :, 0] = 0.0
    matrix[0, :, 1] = np.eye(size[1])[0] * 2.0
    d, e = size

    def found(matrix):
        lower, rotation = triangularise(matrix)
        turned = [rotated_back(rotation, jnp.broadcast_to(x[:, None], (e, 4))) for x in jnp.eye(e)]
        return lower, jnp.stack(turned, axis=1)

    lower, turned = found(jnp.asarray(matrix))
    product = jnp.einsum("ikn,jkn->ijn", lower, turned[:, :d])
    np.testing.assert_allclose(product, matrix, atol=1e-13)
    gram = jnp.einsum("ikn,jkn->ijn", turned, turned)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(e)[..., None], gram.shape), atol=1e-13)
    assert (np.diagonal(lower) >= 0).all()
    np.testing.assert_allclose(lower[0, 1:], 0.0, atol=1e-13)

    def read(m):
        s, u = found(m)
        return jnp.sin(s).sum() + jnp.cos(u).sum()

    direction = jnp.asarray(rng.normal(size=matrix.shape) * [0, 0, 1, 1])
    change = (read(matrix + 1e-6 * direction) - read(matrix - 1e-6 * direction)) / 2e-6
    slope = jax.grad(read)(jnp.asarray(matrix))
    np.testing.assert_allclose(jnp.vdot(slope, direction), change, rtol=1e-6, atol=1e-7)
    assert np.isfinite(slope).all()
