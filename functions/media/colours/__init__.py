"""Colour science: transfer functions, primaries, tone mapping, and the matching ICC profiles.

Pure arithmetic shared by `pictures` and `video`, without decoders, pixels or AWS. Code that applies it to a picture or
frame belongs there.
"""
