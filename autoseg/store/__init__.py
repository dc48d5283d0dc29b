"""What a run keeps: its folder, every training in a ledger, and how sure the differences between them are.

* `records`: a training, a row, a result, as plain values;
* `ledger`: every training in `trials.db`, written before it runs;
* `run_folder`: a run's folder, its lock and its fingerprint, for who writes; `run_files` reads what lies there, whoever
  left it;
* `user_code`, `versions`: what a run depends on beside its settings;
* `paired`: statistics over seeds.
"""
