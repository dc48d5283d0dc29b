"""The worker's part of a search: turn θ into a loss and the loss into scores, by one short training.

* `candidate`: the task that workers are given: builds the loss, trains with it, checks the scores;
* `task`: the built-in training, from the images to the scores of the held-out ones (`autoseg.search` takes a user's);
* `residents`: what a process makes once for all its trainings: data, images on the device, the untrained network;
* `shared`: what trainings with one seed have in common, computed once: the warm-up, stored features;
* `rungs`: intermediate scores, and which trainings are stopped by them;
* `predictions`: class maps that a training saves for reports.
"""
