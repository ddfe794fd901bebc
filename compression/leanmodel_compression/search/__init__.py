"""Right-sizing: recipes from the model's shape, measured cheaply first, and the cheapest that keeps the promise."""
