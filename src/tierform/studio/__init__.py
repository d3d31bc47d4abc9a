"""Pages in a browser over saved results and jobs: one file that opens offline, or a server on this machine."""
