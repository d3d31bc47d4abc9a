"""The cycle-level engine: routers, endpoints and links, simulated flit by flit.

Its public names are those of :mod:`tierform.network`.  This package imports nothing by itself, so that the compiler
loads only with what needs it.
"""
