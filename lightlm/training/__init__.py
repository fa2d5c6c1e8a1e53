"""From batches to checkpoints: optimizer, schedule, trainer, and the child process that runs it."""
