"""Where the numbers of a study's runs go besides its own folder: TensorBoard, MLflow and others.

Touch it to add one: a file with a `Tracker`, its line in `pyproject.toml`, and an extra. Trackers
listen to the events of a study, each in a process of its own, so that none of them can stop a run,
slow it, or change a number.
"""
