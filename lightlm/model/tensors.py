"""Shapes of tensors, as signatures name them: one letter per dimension, in its order.

    B  texts of a batch        D  dimensions of a head (head_dim)
    T  positions of a text     M  dimensions of the model (model_dim)
    S  cached positions        V  entries of the vocabulary
    H  attention heads         N  rows: positions of all texts
    K  key and value heads     E  experts

`Scalar` has no dimension. Type checkers see `torch.Tensor`; nothing is checked at run time.
"""

from typing import Annotated

from torch import Tensor

Scalar = Annotated[Tensor, "scalar"]

B = Annotated[Tensor, "texts"]
BT = Annotated[Tensor, "texts, positions"]
BTM = Annotated[Tensor, "texts, positions, model_dim"]
BTV = Annotated[Tensor, "texts, positions, vocabulary"]
BV = Annotated[Tensor, "texts, vocabulary"]
BHTD = Annotated[Tensor, "texts, heads, positions, head_dim"]
BKTD = Annotated[Tensor, "texts, key-value heads, positions, head_dim"]
BKSD = Annotated[Tensor, "texts, key-value heads, cached positions, head_dim"]
TD = Annotated[Tensor, "positions, head_dim; or texts, 1, positions, head_dim with padding"]

N = Annotated[Tensor, "rows"]
NE = Annotated[Tensor, "rows, experts"]
NM = Annotated[Tensor, "rows, model_dim"]
VM = Annotated[Tensor, "vocabulary, model_dim"]
E = Annotated[Tensor, "experts"]
