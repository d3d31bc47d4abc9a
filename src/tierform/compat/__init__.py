"""Other tools' files: read as they are, and reports written as those tools write them."""
