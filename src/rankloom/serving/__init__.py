"""The server: one user, N candidates, on time.

Import the modules by name: HTTP front ends and the client run without torch.
"""
