"""Measurements: plain scripts that print one table with the reference measured in the same run (docs/benchmarks.md)."""
