"""The control plane: what a LeanModel's spec and what is observed make the Jobs, applications and status be.

Everything here is pure: the local runner acts on it now, and the cluster's controller acts on the same.
"""
