"""Running stages on several processes.

``runtime`` needs torch alone; ``session``, ``training`` and ``rollouts`` need Ray, which is why nothing is
imported here: training in one process works where Ray is not installed.
"""
