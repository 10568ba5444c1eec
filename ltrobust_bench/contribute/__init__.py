"""What a contributor runs: a method's folder to start from, and the contract as checks."""
