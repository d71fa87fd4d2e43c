"""One package for each kind of sensor."""
