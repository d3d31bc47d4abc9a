"""HotSpot's files as stacks, and temperatures by its names."""
