"""`python -m mosaic_async` is `mosaic-async`."""

from mosaic_async.cli.main import main

main(prog_name="mosaic-async")
