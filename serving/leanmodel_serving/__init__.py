"""The data plane: Ray Serve applications, the router and the engines."""
