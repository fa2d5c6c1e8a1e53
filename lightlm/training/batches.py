"""The batches of one rank: from its part of the training shards to the device that trains."""

from collections.abc import Iterator

from lightlm.data.growing import GrowingTokens
from lightlm.data.later_parts import find_failure, list_later, open_part
from lightlm.data.loader import Batch, ThreadedDataLoader
from lightlm.data.shards import MixedTokens, TokenShards, open_shards
from lightlm.ngram.held_back import leave_out_held_back
from lightlm.training.messages import TrainRequest
from lightlm.training.ranks import Ranks


def open_loader(
    request: TrainRequest, shards: TokenShards, start_step: int, ranks: Ranks
) -> ThreadedDataLoader:
    """Return the loader of this rank's sequences, from the batch of `start_step` on."""
    trainer = request.trainer
    context_length = request.model.context_length
    tokens = shards.tokens("train", request.cache_bytes)
    if request.counts_folder is not None:
        tokens = leave_out_held_back(tokens)
    if shards.later:
        tokens = GrowingTokens(
            tokens, list_later(shards), open_part, lambda: find_failure(request.run_folder)
        )
    if request.others:
        others = [(open_shards(one.folder).tokens("train"), one.share) for one in request.others]
        tokens = MixedTokens.mix(tokens, others)
    return ThreadedDataLoader(
        tokens,
        context_length=context_length,
        batch_size=max(1, trainer.batch_tokens // context_length),
        seed=trainer.seed,
        start_step=start_step,
        rank=ranks.rank,
        world_size=ranks.size,
        pin_memory=trainer.device.startswith("cuda"),
    )


def move_batches(loader: ThreadedDataLoader, device: str) -> Iterator[Batch]:
    """Yield the loader's batches on a device; ids stay narrow where it computes unsigned ones."""
    if device == "cpu":
        yield from loader
        return

    is_narrow = device.startswith("cuda")
    for batch in loader:
        tensors = batch if is_narrow else batch.widen()
        yield Batch(*(ids.to(device, non_blocking=True) for ids in tensors))
