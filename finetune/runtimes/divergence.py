"""How far apart two models' predictions are: `kl_divergence(p, q)` over what runtimes' `log_probabilities` return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kl_divergence(p: NDArray[np.float32], q: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return KL(p || q) at each position, in nats: the sum of p log(p / q) over the vocabulary.

    A token that p gives no probability at all adds nothing. Where one vocabulary was padded, the tokens that both have
    are compared.

    Args:
        p: log probabilities, [positions, vocabulary].
        q: those of the other model at the same positions.
    """
    width = min(p.shape[1], q.shape[1])
    p, q = p[:, :width], q[:, :width]
    probability = np.exp(p)
    gap = np.subtract(p, q, out=np.zeros_like(p), where=probability > 0)
    found: NDArray[np.float32] = np.maximum((probability * gap).sum(axis=1), 0.0)
    return found
