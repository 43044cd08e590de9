"""Object stores: the objects of a bucket, and files that are put together inside the bucket.

Start with `store`. It knows nothing of tiles and pixels.
"""
