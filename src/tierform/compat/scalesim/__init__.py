"""SCALE-Sim's configurations and topologies, and its reports by its own accounting."""
