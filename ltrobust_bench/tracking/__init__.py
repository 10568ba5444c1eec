"""Following runs: the log in each run folder, log files for people, TensorBoard and Weights & Biases."""
