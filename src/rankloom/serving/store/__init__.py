"""Features by id: a client names a user and candidates, and the store fills in their columns.

Items come from a mapped file (`items.py`, written by `item_export.py`), users from Redis
(`users.py`, written by `user_writer.py`); `door.py` puts both into a request. No torch here.
"""
