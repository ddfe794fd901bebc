"""An external large model that teaches by its answers: asked over HTTP, within a number of calls and dollars."""
