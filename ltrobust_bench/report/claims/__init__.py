"""What papers claim, tested on our records: ``claims.toml`` states it, a verdict follows from bits. No torch here."""
