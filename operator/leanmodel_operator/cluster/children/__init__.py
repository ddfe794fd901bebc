"""The children of a LeanModel: one file each, a pure function from what is wanted to a plain object."""
