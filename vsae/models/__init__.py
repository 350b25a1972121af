"""Generative programs, one file each: ``x -> mean``, with ``x`` observed."""
