"""The command ``ltbench``: one module per verb, each thin. Modules import what they use when they are called."""
