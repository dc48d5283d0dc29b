"""What a command does once its configuration is checked: data, losses, workers, a run folder, and what is said of it.

One module for each command that trains, with `named` (names alone), `build` (everything before a training) and the
whole way. Their commands import them late, in `ahead.uninterrupted`: they bring torch.
"""
