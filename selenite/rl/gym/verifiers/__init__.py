"""PrimeIntellect's ``verifiers`` beside us: its environments in our loop, and ours in its own.

It lives in an environment of its own (``verifiers==0.3.1``, the last release with
``load_environment(name, **arguments)``); no process imports both. What runs in its interpreter lies
in ``theirs/`` and imports ``verifiers`` and the standard library only.
"""
