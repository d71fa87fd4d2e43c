"""The only room that knows ROS: parameters, messages, and thin nodes around the pipeline."""
