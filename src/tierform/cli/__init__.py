"""The command line: one thin command per verb, each imported only when it is called."""
