"""Whether an error says that memory ran out: PyTorch has a class of error for a GPU's alone."""

import torch

_WORDS = ("out of memory", "DefaultCPUAllocator", "could not create a primitive", "std::bad_alloc")
"""What PyTorch's libraries call it: CUDA, its own allocator, oneDNN, C++."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU's memory or the system's ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        word in str(error) for word in _WORDS
    )
