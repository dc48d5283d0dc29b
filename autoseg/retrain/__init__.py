"""Full trainings through mmengine's Runner: typed settings to an mmengine config, and running it."""
