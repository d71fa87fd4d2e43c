"""Run a bundle: backends and the pipeline that the node and the replay share. No ROS, no torch by default."""
