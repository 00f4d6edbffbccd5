"""Studies: a grid of trainings with equal image gradients, and one table and one plot of what came out.

* What is asked: ``options`` (the YAML file), ``overrides`` (arms and axes), ``image_gradients`` (what a step costs),
  ``cells`` (one training each).
* Running: ``one_cell`` (in a process of its own), ``test_conditions`` and ``measuring`` (what its checkpoints are
  worth), ``scheduling`` (several at once, resumable).
* What came out: ``results`` (files), ``intervals`` (over seeds), ``report`` and ``plot``; ``tool`` puts it together.
"""
