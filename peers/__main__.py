"""`python -m peers` is `sparehive`."""

from peers.cli import main

main()
