"""Full trainings through mmengine's Runner: typed settings to an mmengine config, and running it.

* `build`: the config, plain data; `loaders` are its data, `parts` what it names of ours;
* `runner` runs it and keeps its scores; `launch` is what several processes agree on before;
* `file_errors`: what is wrong with a file that is read.
"""
