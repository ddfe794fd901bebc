"""The cluster's controller: the same loop as the local runner's, acting on a Kubernetes API.

``plan`` and everything below ``children`` are pure; ``observe``, ``apply``, ``lease`` and ``handlers``
act. ``api`` is the one module that knows the ``kubernetes`` package, ``handlers`` the one that knows kopf, and
``rayservice`` the one that knows KubeRay's types.
"""
