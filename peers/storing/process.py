"""The process of one storer: `python -m peers.storing.process DIRECTORY`, started by `peers.supervisor`."""

from swarm.torchless import enter_without_torch


def main() -> None:
    """Entry point. What imports hivemind comes after the doors that need no torch are open."""
    enter_without_torch()
    from peers.storing.storer import main as store

    store()


if __name__ == "__main__":
    main()
