"""The speed of several devices that train one model: each computes its share, then all exchange
gradients.

Arithmetic from the speed of one device, as if messages added to the time of a step: those of the
last micro-batch's backward pass overlap with it, and how much is not known before.
"""

from typing import NamedTuple

from lightlm.budget.probe import MachineRate
from lightlm.model.accounting import count_parameters
from lightlm.model.config import ModelConfig
from lightlm.quantities import count

LINK_BYTES_PER_SECOND = 12e9
"""Bytes per second of an all-reduce among the GPUs of a machine over PCIe 4; assumption, no machine
of ours has two.
"""

NETWORK_BYTES_PER_SECOND = 1.1e9
"""Bytes per second of an all-reduce between machines: Ethernet of 10 Gbit/s; assumption."""

GRADIENT_BYTES = 4
"""Bytes of a parameter's gradient, in float32."""


class Speedup(NamedTuple):
    """Factor on one device's speed, and the fraction of a step that messages take."""

    num_ranks: int = 1
    factor: float = 1.0
    message_share: float = 0.0

    def reasons(self) -> list[str]:
        """Return a sentence about it; none for one device."""
        if self.num_ranks == 1:
            return []
        return [
            f"{count(self.num_ranks, 'device')} together train {self.factor:.1f} times as fast as "
            f"one: messages take {self.message_share:.0%} of a step, by arithmetic and not timed"
        ]


def estimate_speedup(
    machine: MachineRate,
    num_nodes: int,
    model: ModelConfig,
    tokens_per_second: float,
    batch_tokens: int,
) -> Speedup:
    """Return what all ranks reach together, if one trains `tokens_per_second`.

    Processes on a CPU share its threads and are no faster than one.
    """
    num_ranks = machine.num_devices * num_nodes
    if num_ranks == 1 or machine.device == "cpu":
        return Speedup(num_ranks)

    computing = batch_tokens / (num_ranks * tokens_per_second)
    link = machine.link_bytes_per_second or LINK_BYTES_PER_SECOND
    slowest = link if num_nodes == 1 else min(link, NETWORK_BYTES_PER_SECOND)
    # a ring sends each gradient twice, but for each rank's own part
    sent = 2 * (num_ranks - 1) / num_ranks * GRADIENT_BYTES * count_parameters(model)
    messages = sent / slowest
    share = messages / (computing + messages)
    return Speedup(num_ranks, num_ranks * (1 - share), share)
