"""Schemes to forge the board, by name."""

from board_schemes import judged, masked, plain, sly
from board_schemes.tools import SCHEMES, Copy

__all__ = ["SCHEMES", "Copy", "judged", "masked", "plain", "sly"]
