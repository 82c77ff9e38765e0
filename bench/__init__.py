"""Benchmarks: `python -m bench` (or `make bench`) measures this package against what the machine
can do, prints tables and writes bench/results.json.
"""
