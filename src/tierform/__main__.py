"""``python -m tierform``."""

from tierform.cli.main import main

main()
