"""Compiled contracts, made by build.mjs."""
