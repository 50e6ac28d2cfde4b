"""Helpers for models: rates, steps, SciPy's solutions, and the advection of a vorticity."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from dasim.transitions import ModelTransition

FLOW = dict(size=16, reynolds=20.0, wavenumber=2)
K = np.fft.fftfreq(16, 1 / 16)[:, None]
L = K.T


def zero():
    return jnp.zeros(())


@eqx.filter_jit
def rate(model, x):
    return model.tendency(zero(), x)


@eqx.filter_jit
def advance(model, x, n_steps=1):
    return ModelTransition(model, n_steps).mean(jnp.asarray(x), zero())


def solve(tendency, x, time):
    return solve_ivp(tendency, (0, time), x, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]


def truncated(field):
    modes = np.fft.fft2(field)
    return np.fft.ifft2(np.where((np.abs(K) < 16 / 3) & (np.abs(L) < 16 / 3), modes, 0)).real


def advection(w):
    """u w_x + v w_y of a truncated vorticity, truncated."""
    d = lambda f, factor: np.fft.ifft2(factor * np.fft.fft2(f)).real
    psi = d(w, 1 / np.where(K**2 + L**2 > 0, K**2 + L**2, np.inf))
    return truncated(d(psi, 1j * L) * d(w, 1j * K) - d(psi, 1j * K) * d(w, 1j * L))
