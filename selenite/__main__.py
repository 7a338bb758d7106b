"""``python -m selenite`` is the command ``selenite``."""

from selenite.cli.main import main

main()
