"""Plain records and pure functions: no clock, no thread, no ROS, no torch. Imports nothing from the other rooms."""
