"""The scale of a loss whose gradients are float16: as large as they bear, so that few are zero.

The rule and its constants are torch.amp.GradScaler's, which wants a torch optimizer; ours updates
by Muon, and knows the norm of all gradients on all ranks already.
"""

FIRST_SCALE = 65536.0
GROWTH = 2.0
BACKOFF = 0.5
GROWTH_STEPS = 2000
"""First scale, factors after GROWTH_STEPS steps without an overflow and after an overflow."""

LEAST_SCALE = 1.0
"""Scale below which it is not float16 that overflows."""


class LossScale:
    """A factor on the loss; 1 and fixed unless gradients are float16."""

    def __init__(self, dtype: str, factor: float | None = None) -> None:
        self._is_used = dtype == "float16"
        self.factor = (factor or FIRST_SCALE) if self._is_used else 1.0
        self._num_good = 0

    def accept(self, *, is_finite: bool) -> bool:
        """Return whether gradients of this factor count, and choose the next one.

        False after an overflow that a smaller factor may mend: the step is left out.
        """
        if not self._is_used:
            return True
        if is_finite:
            self._num_good += 1
            if self._num_good == GROWTH_STEPS:
                self.factor *= GROWTH
                self._num_good = 0
            return True

        self._num_good = 0
        if self.factor <= LEAST_SCALE:
            return True
        self.factor = max(LEAST_SCALE, self.factor * BACKOFF)
        return False
