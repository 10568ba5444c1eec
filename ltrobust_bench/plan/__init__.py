"""From a request to everything that a run fixes. Imports no torch."""
