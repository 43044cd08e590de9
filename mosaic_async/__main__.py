"""`python -m mosaic_async` is `mosaic-async`."""

from mosaic_async.cli import main

main(prog_name="mosaic-async")
