"""Rival (b): a plain GPT training loop as nanoGPT's readers write it: GPT-2's layout, AdamW,
warm-up and cosine.

Four layers x 128, context 256, 8 sequences a step, 3e-3, bfloat16 autocast (nanoGPT itself computes
in float32 on a CPU and would be slower); the cosine ends with the time.
"""

import math

import torch
from rival_text import Contest
from torch import Tensor, nn
from torch.nn import functional

LAYERS = 4
WIDTH = 128
HEADS = 2
CONTEXT = 256
BATCH = 8
RATE = 3e-3


class Block(nn.Module):
    """Pre-norm attention and a GELU feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feedforward = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, WIDTH)."""
        batch, length, _ = x.shape
        heads = (
            self.attention(self.first(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        )
        gathered = functional.scaled_dot_product_attention(
            heads[0], heads[1], heads[2], is_causal=True
        )
        x = x + self.projection(gathered.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.feedforward(self.second(x))


class GPT(nn.Module):
    """Learned positions, tied head."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                is_output = name.endswith(("projection.weight", "feedforward.2.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * LAYERS) if is_output else 1.0))

    def forward(self, inputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Return the nats of targets (B, T)."""
        x = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1]))
        logits = self.norm(self.blocks(x)) @ self.tokens.weight.T
        return functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), reduction=reduction
        )


def main() -> None:
    """Train, then score."""
    contest = Contest(__doc__)
    torch.manual_seed(0)
    model = GPT(contest.vocab_size)

    def nats_of(inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(inputs, targets, reduction="sum")

    contest.time_scoring(nats_of, CONTEXT)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=RATE,
        betas=(0.9, 0.95),
        fused=True,
    )

    generator = torch.Generator().manual_seed(0)
    tokens = 0
    while (progress := contest.progress()) < 1.0:
        rate = RATE * min(1.0, progress / 0.05 + 0.01) * (0.5 + 0.5 * math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = contest.batch(generator, BATCH, CONTEXT)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(inputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tokens += inputs.numel()

    model.eval()
    contest.finish(nats_of, CONTEXT, tokens)


if __name__ == "__main__":
    main()
