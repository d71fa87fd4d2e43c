"""Training objectives: entropy, contrastive expert calibration, curriculum masking."""
