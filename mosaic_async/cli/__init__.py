"""The command line: parses, calls the library, prints.

It alone prints, reads the environment or installs uvloop; it decides nothing about tiles or pixels.
Start with `main`; `options` declares the flags, `terminal` writes text for people.
"""
