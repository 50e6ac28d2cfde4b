"""Events written as expressions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.events.language import EventError, parse_event

SHAPE = 12, 3  # a trajectory
X = np.random.default_rng(2).standard_normal(SHAPE)
A, B, C = X.T


@pytest.mark.parametrize(
    ("expression", "exact"),
    [
        ("max(x[0]) > 1.5", A.max() > 1.5),
        ("max(x[0]) > -1.5", A.max() > -1.5),
        ("1 < max(x[0]) + max(x[1]) <= 2 * pi", 1 < A.max() + B.max() <= 2 * np.pi),
        ("x[2] < 9", True),
        ("9 > max(x[1]) >= -9", True),
        ("-1 < x[0, 0] < -0.99", -1 < A[0] < -0.99),
        ("x[2] < 0", bool((C < 0).all())),
        ("x[0, 3] > x[1, -1]", A[3] > B[-1]),
        ("not min(x[0]) < -9", True),
        ("mean(x[0, 2:5] ** 2) < 0 or std(x[1]) / 2 > 0.1", True),
        ("(min(x[0]) > 0) | (max(x[0]) < 9) & ~(sum(abs(x[1])) < 1)", True),
        ("mean(spectrum(x[0] / 2)) > 1.2", np.abs(np.fft.rfft(A / 2))[1:].mean() > 1.2),
        ("max(diff(x[1])) > 2", np.diff(B).max() > 2),
        ("exp(-x[0, 0]) >= 1", np.exp(-A[0]) >= 1),
    ],
)
def test_what_expressions_mean(expression, exact):
    event = parse_event(expression, SHAPE, trajectory=True)
    assert bool(event.holds(jnp.asarray(X))) == exact
    slope = jax.grad(lambda x: event.constraint(x).sum())(jnp.asarray(X))
    assert slope.shape == SHAPE and np.isfinite(slope).all()


def test_a_state_has_no_steps():
    event = parse_event("x[1] > 2 and x[0] < x[1]", (3,))
    assert event.holds(jnp.array([1.0, 3.0, 0.0])) and not event.holds(jnp.array([4.0, 3.0, 0.0]))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("y > 1", "unknown name 'y'; the state is x"),
        ("maxx(x[0]) > 1", "unknown function 'maxx'; did you mean 'max'"),
        ("__import__('os').getcwd() > 1", "unknown function"),
        ("x.shape > 1", "'x.shape' is not part of the language"),
        ("x[0] if x else 1", "is a value and not an event"),
        ("(lambda: 1)() > x", "unknown function 'lambda: 1'"),
        ("x[5] > 1", r"index 5 is outside 0 to 2: x has shape \(3, 12\)"),
        ("x['a'] > 1", "expected a whole number or a slice"),
        ("max(x[0])", "is a value and not an event: compare it"),
        ("x[0] == 1", "expected <, <=, > or >="),
        ("1 < 2", "compares two numbers: use x"),
        ("max > 1", "a function needs its argument in brackets"),
        ("max(x, 1) > 2", "max takes one argument"),
        ("max(x[0] >", "cannot be read at character"),
        ("max(x[0] > 1) > 0", "is an event, and a value is expected"),
        ("True > x", "'True' is not part of the language"),
        ("x[0, :5] + x[1, :3] > 1", r"shapes .*; x has shape \(3, 12\)"),
        ("x > " + "1 + " * 300 + "1", "characters, expected up to 1000"),
        ("(" * 300 + "x" + ")" * 300 + " > 1", "cannot be read|nested too deeply"),
        ("", "cannot be read"),
        ("x > diff(1)", "event: "),
        ("x[-(1, 2)] > 0", "event: "),
        ("x > 1" + "0" * 400, "event: "),
        ("max(x[0]) > 1 / 0", "expected a finite number"),
        ("2 < max(x[0]) < 1", "low is 2.0, expected below high, 1.0"),
    ],
)
def test_what_is_refused(expression, message):
    with pytest.raises(EventError, match=message):
        parse_event(expression, SHAPE, trajectory=True)
