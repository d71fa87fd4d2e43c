"""What labeled data holds: `aecf dataset inspect`."""
