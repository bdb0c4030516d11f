"""The registry of models: their files, their versions and the stages of these.
How models are trained is in `training`."""
