"""What numbers mean as light: transfer functions, primaries, tone mapping, and ICC profiles that say the same.

Pure arithmetic, shared by `pictures` and `video`, with no decoder, no pixel and no AWS in it. What applies it to a
picture or a frame belongs there.
"""
