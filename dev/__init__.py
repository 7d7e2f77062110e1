"""Development tools: building the packages, the local cloud, invoking a function, sample data and the demo.

No function, layer or operator command imports anything from here.
"""
