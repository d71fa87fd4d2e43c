"""How fast features are extracted, and how fast a head is trained on them."""
