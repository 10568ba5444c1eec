"""Many runs: plans in TOML, the jobs that they come to, their states on the disk, and the loop that has them done."""
