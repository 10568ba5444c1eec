"""Schemes to forge the board, by name."""

from board_schemes import judged, plain, sly
from board_schemes.tools import SCHEMES, Copy

__all__ = ["SCHEMES", "Copy", "judged", "plain", "sly"]
