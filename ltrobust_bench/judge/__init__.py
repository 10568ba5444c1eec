"""Networks as graphs of tensor operations, so that whoever judges one runs none of its author's Python.

``operations.py``: which operations there are. ``graph.py``: a graph as a file. ``export.py``: from a module to a graph
by torch.export, in a process apart, since it runs the module's code. ``interpret.py``: a graph as a module of ours.
``examine.py``: what must hold before a graph stands for a network.
"""
