"""Evaluation: running the suite, and everything that is derived from its bits."""
