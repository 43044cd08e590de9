"""What comes from outside, and what must not get out: JSON that nobody vouches for, and secrets in texts.

It knows nothing of who reads and who tells. Start reading in `redaction`.
"""
