"""Rival (a): the Hugging Face Trainer on a Llama from scratch, of a size and rates picked by hand.

Four layers x 128, context 256, AdamW at 5e-3 with weight decay 0.1, linear to zero over the time
(its own schedules count steps; here it is given our clock), bfloat16: the best of five hand-tuned
settings at two minutes on two cores.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from rival_text import Contest
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

CONTEXT = 256
BATCH = 4


class Windows(torch.utils.data.IterableDataset):
    """Random windows of the training text, without end."""

    def __init__(self, contest: Contest) -> None:
        self.contest = contest

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield one window after another."""
        generator = torch.Generator().manual_seed(0)
        while True:
            inputs, _ = self.contest.batch(generator, 1, CONTEXT + 1)
            yield {"input_ids": inputs[0], "labels": inputs[0]}


class Clock(TrainerCallback):
    """Ends the training when the time is over."""

    def __init__(self, contest: Contest) -> None:
        self.contest = contest
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Stop at the end of the time."""
        self.steps += 1
        if self.contest.progress() >= 1.0:
            control.should_training_stop = True
        return control


def main() -> None:
    """Train, then score."""
    contest = Contest(__doc__)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=contest.vocab_size,
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
        )
    )

    def nats_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=inputs).logits
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), reduction="sum"
        )

    contest.time_scoring(nats_of, CONTEXT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda _: min(1.0, contest.progress() / 0.05 + 0.01) * (1.0 - contest.progress())
    )
    clock = Clock(contest)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=10_000_000,
            bf16=True,
            use_cpu=True,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_num_workers=0,
            max_grad_norm=1.0,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Windows(contest),
            callbacks=[clock],
            optimizers=(optimizer, schedule),
        )
        trainer.train()

    model.eval()
    contest.finish(nats_of, CONTEXT, clock.steps * BATCH * CONTEXT)


if __name__ == "__main__":
    main()
