"""What a worker does with a candidate: from θ to a loss to its scores, by one short training.

* `candidate`: the task that workers are given: builds the loss, trains with it, checks the scores;
* `task`: our own training in it, from the images to the scores of those held out (`autoseg.search` takes a user's);
* `shared`: what trainings with one seed have in common, made once: the warm-up, stored features;
* `rungs`: scores on the way, and who is stopped by them;
* `predictions`: class maps that a training leaves for reports.
"""
