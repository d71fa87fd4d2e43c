"""Training: a dataset folder in, a verified model bundle out. See :func:`aecf_ros.training.run.train.train`."""
