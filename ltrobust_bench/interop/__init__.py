"""Other people's models in, and our records out in their form."""
