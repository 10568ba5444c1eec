"""Training: one step, the schedule, checkpoints, and the loop. Importing this does not import torch."""
