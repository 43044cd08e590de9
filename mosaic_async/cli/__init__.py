"""The command line: it parses, calls the library and prints.

No other room prints, reads the environment or installs uvloop; this one decides nothing about tiles or pixels.
Start with `main`. Each command has a file, `options` declares the flags, `terminal` writes text for people.
"""
