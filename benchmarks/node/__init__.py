"""The node against the floor (transport, encoder, publish, nothing else) and against the usual design, over DDS."""
