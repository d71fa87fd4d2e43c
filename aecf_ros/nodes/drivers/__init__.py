"""Camera and microphone drivers."""
