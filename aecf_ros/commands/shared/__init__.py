"""What several commands share: opening data, options of recordings, batches, the terminal."""
