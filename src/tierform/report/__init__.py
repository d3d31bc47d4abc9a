"""Tables, pages of studies, timeline traces: reads results, never computes them."""
