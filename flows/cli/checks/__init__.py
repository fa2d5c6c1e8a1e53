"""The checks of `lightlm doctor`, in the order of a run."""
