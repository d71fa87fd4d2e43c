"""The health of a stream, the same for every kind of sensor: a state machine and what it stands on."""
