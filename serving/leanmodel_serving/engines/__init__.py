"""Engines: what runs a model inside a Serve replica. One file each, entered in ``base.ENGINES``."""
