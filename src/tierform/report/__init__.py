"""Tables, HTML, pictures, timeline traces: reads results, never computes them."""
