"""Developing: building the packages, the local cloud, invoking a function, sample data and the demo.

Nothing here is imported by a function, by the layer, or by the operator's command.
"""
