"""Ray Tune and Optuna: the only place that imports either. Optuna's storage is the truth about trials."""
