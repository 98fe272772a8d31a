"""Compare two sets of feature vectors beyond their Gaussians: kernel distance, recall and coverage.

All functions take any features (N, D) and compute in float64.
"""

from __future__ import annotations

import numpy as np

NEAREST = 3  # k of recall and coverage
SUBSETS = 100
Z = 1.959964  # for 95 % of a normal distribution


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the KID, the unbiased squared MMD with the kernel (x.y / D + 1)^3 (arXiv 1801.01401, equation 4).

    For two sets from one distribution, it is 0 on average and can be negative.

    Args:
        a, b: (N, D) and (M, D), at least two rows each.

    Raises:
        ValueError: if a set is too small or their widths differ.
    """
    return _distance(*_kernels(a, b))


def kernel_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Return the KID of two sets and its 95 % interval by the delete-half jackknife.

    The standard error is the spread of the distance over random halves of both sets, sampled without replacement: half
    of N items varies around the whole as the whole varies around the truth.

    Args:
        a, b: (N, D) and (M, D), at least four rows each.

    Returns:
        The distance, and its interval.
    """
    inside_a, inside_b, across = _kernels(a, b)
    rng, found = np.random.default_rng(0), []
    for _ in range(SUBSETS):
        rows = rng.choice(len(a), len(a) // 2, replace=False)
        columns = rng.choice(len(b), len(b) // 2, replace=False)
        parts = inside_a[np.ix_(rows, rows)], inside_b[np.ix_(columns, columns)], across[np.ix_(rows, columns)]
        found.append(_distance(*parts))
    value, half = _distance(inside_a, inside_b, across), Z * float(np.std(found))
    return value, (value - half, value + half)


def recall(real: np.ndarray, made: np.ndarray) -> float:
    """Return the share of real vectors within the manifold of the generated set (arXiv 1904.06991).

    The radius of a generated vector is the distance to its k-th nearest generated neighbour, k = 3. A real vector is
    within the manifold if it is at most a radius away from some generated vector. Both sets, (N, D) and (M, D), have
    more than k vectors.
    """
    return float((_distances(real, made) <= _radii(made)[None, :]).any(1).mean())


def coverage(real: np.ndarray, made: np.ndarray) -> float:
    """Return the share of real vectors, (N, D), with a generated vector within their radius (arXiv 2002.09797).

    The radius is the distance to the k-th nearest real neighbour, k = 3; the generated vectors are (M, D).
    """
    return float((_distances(real, made).min(1) <= _radii(real)).mean())


def _kernels(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernel's values within a, within b, and between both."""
    check_features(a, b, 2)
    a, b = a.astype(np.float64), b.astype(np.float64)
    inside_a, inside_b, across = ((one @ other.T / a.shape[1] + 1) ** 3 for one, other in ((a, a), (b, b), (a, b)))
    return inside_a, inside_b, across


def _distance(inside_a: np.ndarray, inside_b: np.ndarray, across: np.ndarray) -> float:
    """Return the distance from means without the diagonals, which makes the estimate unbiased."""
    n, m = across.shape
    within = (inside_a.sum() - np.trace(inside_a)) / (n * (n - 1)) + (inside_b.sum() - np.trace(inside_b)) / (
        m * (m - 1)
    )
    return float(within - 2 * across.mean())


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared distances (N, M)."""
    check_features(a, b, 1)
    a, b = a.astype(np.float64), b.astype(np.float64)
    squares: np.ndarray = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return squares.clip(0)


def _radii(vectors: np.ndarray) -> np.ndarray:
    """Return the squared distance of each vector to its k-th nearest other vector."""
    check_features(vectors, vectors, NEAREST + 1)
    distances = _distances(vectors, vectors)
    np.fill_diagonal(distances, 0)
    radii: np.ndarray = np.partition(distances, NEAREST, axis=1)[:, NEAREST]
    return radii


def check_features(a: np.ndarray, b: np.ndarray, least: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < least:
        raise ValueError(f"features have shapes {a.shape} and {b.shape}; expected {least} rows or more of one width")
