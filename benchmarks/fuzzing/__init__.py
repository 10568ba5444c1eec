"""What is fuzzed: one class per kind of file, and one for the command line."""

from fuzzing import binaries, commands, documents
from fuzzing.tools import KINDS, FaultError, Kind, Limits, campaign

__all__ = ["KINDS", "FaultError", "Kind", "Limits", "binaries", "campaign", "commands", "documents"]
