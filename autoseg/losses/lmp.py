"""Loss max-pooling: the worst weighting of the pixels' losses within a p-norm ball and a cap."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.losses.base import SegLoss, check_range
from autoseg.losses.batch import Batch


class LossMaxPooling(SegLoss):
    """Loss max-pooling: max over w in W of S_i w_i l_i, l the pixels' cross-entropy.

    W = {w >= 0: ||w||_p <= gamma, ||w||_inf <= tau}, gamma = n^(-1/q), tau = gamma m^(-1/p), 1/p + 1/q = 1, n
    valid pixels, m = share * n of which at least must bear the weight (Rota Bulò et al. 2017, eq. 3 to 6).
    Uniform weights 1/n lie in W, so the loss bounds cross-entropy from above. p -> 1: mean of the top m losses
    (OHEM); p = inf or share = 1: plain mean.

    Maximiser: w_i = tau min(1, (l_i / alpha)^(q-1)). With k capped pixels and J the others, the p-norm is
    reached at alpha^q = S_J l_i^q / (m - k); k is the least count for which no loss of J exceeds alpha. By
    Danskin's theorem the gradient is S w_i grad l_i, without a term through w.

    Args:
        num_classes: C.
        p: exponent of the norm, in (1, inf].
        share: m as a share of the valid pixels, in (0, 1]; m is at least 1.
        common: options of `SegLoss`.
    """

    name = "lmp"
    summary = "loss max-pooling: cross-entropy under its worst pixel weights, between top-m and plain mean"
    source = "Rota Bulò et al., CVPR 2017, arXiv 1704.02966"
    pointwise = True
    rank_local = True  # sorts the pixels of the batch
    soft_labels = True

    def __init__(self, num_classes: int, *, p: float = 1.3, share: float = 0.25, **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.p = check_range("p", p, 1, math.inf, open_low=True)
        self.share = check_range("share", share, 0, 1, open_low=True)

    def compute(self, batch: Batch) -> Tensor:
        """Return the weighted sum of the pixels' losses, in nats.

        Its gradient is the maximum's (Danskin's theorem), second derivatives are those of fixed weights.
        """
        losses = batch.cross_entropy()
        return (self.weights(losses.detach(), batch.valid) * losses).sum()

    @torch.no_grad()
    def weights(self, pixel_losses: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the maximiser w over all given pixels.

        Args:
            pixel_losses: any shape, float, not negative.
            valid: bool of the same shape, the pixels that count; None: all.

        Returns:
            Weights of the same shape and dtype, 0 where not valid; where a loss is 0 the weight does not
            matter and is 0, except that all-zero losses and p = inf give 1/n each.

        Raises:
            InputError: a negative loss (checked on the CPU only). NaN gives NaN.
        """
        if pixel_losses.device.type == "cpu" and not torch.compiler.is_compiling():
            if bool((pixel_losses < 0).any()):
                raise InputError("pixel losses", "numbers of 0 or more", pixel_losses.min().item())
        valid = torch.ones_like(pixel_losses, dtype=torch.bool) if valid is None else valid
        if pixel_losses.device.type == "mps":  # an Apple GPU has no float64
            return self.weights(pixel_losses.cpu(), valid.cpu()).to(pixel_losses.device)
        losses = pixel_losses.double() * valid  # float64: powers q of a thousand and more follow
        count = valid.sum().clamp(min=1).double()
        uniform = valid / count
        if math.isinf(self.p) or losses.numel() == 0:
            return uniform.to(pixel_losses.dtype)
        weights = _maximizer(losses.flatten(), count, self.p, self.share).view_as(losses)
        return torch.where(losses.max() > 0, weights, uniform).to(pixel_losses.dtype)


def _maximizer(losses: Tensor, count: Tensor, p: float, share: float) -> Tensor:
    """Return weights (P,) for losses (P,) in float64, of which `count` are valid and the others 0.

    In logs throughout: l^q overflows for p near 1, where q = p / (p - 1) is large.
    """
    q = p / (p - 1)
    m = (share * count).clamp(min=1)
    log_losses = losses.log()  # -inf for 0
    ascending = log_losses.sort().values
    sums = torch.logcumsumexp(q * ascending, dim=0)  # log of S_J l^q for J = the least 1, 2, ..., P losses
    capped = torch.arange(len(losses) - 1, -1, -1, device=losses.device)
    room = m - capped
    log_alpha = (sums - room.clamp(min=torch.finfo(m.dtype).tiny).log()) / q
    # With the largest possible k the condition always holds; rounding may hide that where losses tie.
    fits = (room > 0) & ((ascending <= log_alpha) | (room <= 1))
    last = (fits * torch.arange(1, len(losses) + 1, device=losses.device)).argmax(dim=0, keepdim=True)
    log_tau = -count.log() / q - m.log() / p
    log_ratio = (q - 1) * (log_losses - log_alpha.gather(0, last)).clamp(max=0)  # by index, a 0-d place waits
    return torch.where(losses > 0, (log_tau + log_ratio).exp(), 0.0)
