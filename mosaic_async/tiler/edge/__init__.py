"""What a tiler process accepts: names and prices of parameters, hosts, deadlines.

It knows nothing of how pixels are made; it decides before any work whether, and for how long, a request may cause it.
Start with `route`, which checks a request before FastAPI does; `gate` watches it while it runs.
"""
