"""One job from start to end: probe, plan, download, seal, resume and report.

It knows neither the command line nor how a tiler renders; it fetches through `http` and writes through `raster`.
Start with `run.Run`; `download` fills the parts, `work_folder` keeps what a killed run leaves.
"""
