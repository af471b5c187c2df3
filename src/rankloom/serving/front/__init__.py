"""The HTTP front end: JSON and MessagePack over a `Backend`, with limits; needs no torch."""
