"""The files of a run: its folder and its ledger of trainings; and the statistics over seeds.

* `records`: a training, a row, a result, as plain values;
* `ledger`: every training in `trials.db`, written before it runs;
* `run_folder`: a run's folder, its lock and its fingerprint, for the process that writes; `run_files` reads the files
  of any run folder, also one that came from somebody else;
* `user_code`, `versions`: what a run depends on besides its settings;
* `paired`: statistics over seeds.
"""
