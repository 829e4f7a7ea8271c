"""Moments for people."""

import datetime


def until(seconds: int) -> str:
    """A moment of the chain's clock (unix seconds)."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


__all__ = ["until"]
