"""A page for people, at `/`: how the server does, a playground and what its scores depend on."""
