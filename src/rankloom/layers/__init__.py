"""Protocols of the slots, and modules that two or more architectures share."""
