"""Commands that bring rooms together which do not know each other: recordings to the trainer, bundles to recordings."""
