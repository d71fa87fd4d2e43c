"""Vectors that another program computes, such as text embeddings."""
