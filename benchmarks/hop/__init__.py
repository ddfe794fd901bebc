"""What a router adds to a request: a mock engine, a load generator, the routers beside each other, and the page."""
