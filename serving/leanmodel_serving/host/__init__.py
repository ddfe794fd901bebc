"""The local host: keeps a Ray of its own, Serve and HAProxy at a desired state that stands in a file."""
