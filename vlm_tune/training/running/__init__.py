"""The training run itself: batches, steps, the loop around TRL, and everything that can happen to it."""
