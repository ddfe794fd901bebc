"""Where weights and data come from, and the content-addressed store that every Job works in."""
