"""What is trained: the full network, the students and the canvas selector, and how they are evaluated.

Nothing here knows Ray or MLflow; a stage is handed a :class:`~sketchynet.stages.runtime.Runtime`.
"""
