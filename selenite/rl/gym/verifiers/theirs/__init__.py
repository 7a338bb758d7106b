"""Files that run in the interpreter that has ``verifiers``, by path or from ``PYTHONPATH``."""
