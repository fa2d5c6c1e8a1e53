"""Recognition of out-of-memory errors: PyTorch has a class of its own only for GPUs."""

import torch

_WORDS = ("out of memory", "DefaultCPUAllocator", "could not create a primitive", "std::bad_alloc")
"""Words of out-of-memory errors: of CUDA, PyTorch's allocator, oneDNN, C++."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU's memory or the system's ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        word in str(error) for word in _WORDS
    )
