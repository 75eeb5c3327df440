"""Running stages on several processes, of this machine or of a cluster.

``processes``, ``side_by_side`` and ``runtime`` need torch alone; ``session``, ``training`` and ``rollouts`` need Ray,
which is why nothing is imported here: training on one machine works where Ray is not installed.
"""
