"""Measurements that write result rows: ``python -m benchmarks.NAME``, each printing a table."""
