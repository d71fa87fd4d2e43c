"""Gates: how much each modality counts."""
