"""Full trainings through mmengine's Runner: turns typed settings into an mmengine config, and runs it.

* `build`: the config, plain data; `loaders` builds its data, `parts` are the classes of ours that it names;
* `runner` runs it and stores its scores; `launch` is what several processes must agree on before;
* `file_errors`: clear errors for files that cannot be read.
"""
