"""Other libraries training the same DCN-V2 on the same log, each a script in their own environment.

`protocol` is what each contender is given and must report, `environment` installs and runs them.
"""
