"""The compress Job: fetch, adapt, compress and check a model, step by step through the store."""
