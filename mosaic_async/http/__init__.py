"""One GET, done well: a session, a permit per attempt, backoff, pauses, outages and a cap on every body.

It knows nothing of tiles: what a body means is the caller's business, and no exception of aiohttp leaves it.
Start with `client.Client`; `request.Requester` makes one attempt, `outcome` says what its answer means.
"""
