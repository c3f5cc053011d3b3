"""Many workers: the only room that imports Ray.

=================  ==========================================================================================
driver             `ray_train` and `ray_evaluate` (what a command calls), `cluster`, `team`, `preflight`, `group`
worker             `worker` (any job), `train_job`, `evaluate_job`, `reporter`, `relay`, `ray_metrics`
between them       `desk` (an actor), `mirror` (a shared copy of the run's folder)
=================  ==========================================================================================
"""
