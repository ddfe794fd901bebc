"""The router: one OpenAI-compatible address in front of the lean and the large model."""
