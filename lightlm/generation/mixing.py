"""Logits of a network and count tables together, as torch holds them."""

from collections.abc import Sequence

import torch

from lightlm.model.tensors import BV
from lightlm.ngram.mixture import Context, Mixture


def mix_logits(mixture: Mixture, logits: BV, contexts: Sequence[Context]) -> BV:
    """Return logits of both together in fp32, on the device of the network's `logits`."""
    mixed = mixture.mix(logits.detach().float().cpu().numpy(), contexts)
    return torch.from_numpy(mixed).to(logits.device)
