"""A real Kubernetes for tests: its programs built once, its servers started in seconds, a node when asked.

Run as `PYTHONPATH=tools python -m cluster COMMAND`, which is what the Makefile does; needs nothing but the
standard library. docs/cluster.md says what it makes and what it needs.
"""
