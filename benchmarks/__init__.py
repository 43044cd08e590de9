"""The benchmarks: a replay server, the rivals on the same endpoint, tables and plots. `python -m benchmarks --help`."""
