"""HTTP done well: a session, a permit per attempt, backoff, pauses, outages, and a cap on every body.

It knows nothing of tiles: the caller decides what a body means. No exception of aiohttp leaves this room.
Start with `client.Client`; `request.Requester` makes one attempt, `outcome` classifies its answer.
"""
