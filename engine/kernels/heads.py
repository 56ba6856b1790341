"""The robust fit of the head's motion, in machine code. Equivalent: `engine.registration.head.fit_by_numpy`."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# ruff: noqa: PLR0917

from __future__ import annotations

import math

import numpy as np

from engine.kernels.machine import SUMS, part


@part(SUMS)
def middle(values, count):
    """The median of the first `count` values, which are put in order (a few dozen: insertion is the quickest way)."""
    for k in range(1, count):
        value, place = values[k], k
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value
    low, high = values[(count - 1) // 2], values[count // 2]
    return low if count % 2 else (low + high) / 2


@part(SUMS)
def solve(square, right):
    """right = square^-1 right for a symmetric positive definite matrix [T, T], of which the lower half is read (Cholesky)."""
    size = len(right)
    for i in range(size):
        for j in range(i + 1):
            rest = square[i, j]
            for k in range(j):
                rest -= square[i, k] * square[j, k]
            square[i, j] = math.sqrt(rest) if i == j else rest / square[j, j]
        for k in range(i):
            right[i] -= square[i, k] * right[k]
        right[i] /= square[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            right[i] -= square[k, i] * right[k]
        right[i] /= square[i, i]


@part(SUMS)
def normal_equations(design, moved, weight, ridge, square, right):
    """square [T, T] (its lower half) and right [T] of the weighted least squares fit of moved [N, 2] by design [N, 2, T]."""
    size = len(right)
    for i in range(size):
        right[i] = 0.0
        for j in range(i + 1):
            square[i, j] = ridge[i, j]
    for n in range(len(design)):
        for axis in range(2):
            for i in range(size):
                factor = weight[n] * design[n, axis, i]
                right[i] += factor * moved[n, axis]
                for j in range(i + 1):
                    square[i, j] += factor * design[n, axis, j]


def fit(design, moved, trust, first, stop, finest, ridge, rounds):
    """The terms [T], the residual and the share that agrees, as `engine.registration.head.fit_by_numpy`.

    Rows first..stop - 1 are the head's own; ridge [T, T] is added to the square of the least squares; it is weighted again
    `rounds` times.
    """
    count, size = len(design), design.shape[2]
    square, terms = np.empty((size, size)), np.empty(size)
    weight, residual, ordered = trust.copy(), np.empty(count), np.empty(stop - first)
    for turn in range(rounds):
        normal_equations(design, moved, weight, ridge, square, terms)
        solve(square, terms)
        voters = 0
        for n in range(count):
            u, v = moved[n, 0], moved[n, 1]
            for i in range(size):
                u -= design[n, 0, i] * terms[i]
                v -= design[n, 1, i] * terms[i]
            residual[n] = math.sqrt(u * u + v * v)
            if first <= n < stop and trust[n] > 0:
                ordered[voters] = residual[n]
                voters += 1
        own = 1.5 * middle(ordered, voters) if voters else 1.0
        scale = 2 * max(own, finest, 0.5**turn)
        for n in range(count):
            spread = 1 + (residual[n] / scale) ** 2
            weight[n] = trust[n] / (spread * spread)
    total, agree = 0.0, 0.0
    for n in range(first, stop):
        total += trust[n]
        agree += trust[n] if residual[n] < 1.0 else 0.0
        ordered[n - first] = residual[n]
    return terms, middle(ordered, stop - first), agree / max(total, 1e-9)


_TABLE, _NUMBERS = "float64[:, ::1]", "float64[::1]"
_GIVEN = f"float64[:, :, ::1], {_TABLE}, {_NUMBERS}, intp, intp, float64, {_TABLE}, intp"
FIT = f"Tuple(({_NUMBERS}, float64, float64))({_GIVEN})"
"""numba's signature of `fit`."""
