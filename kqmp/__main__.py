"""`python -m kqmp` is `kqmp`."""

from kqmp.cli.main import main

main()
