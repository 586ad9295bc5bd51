"""Students of KerasHub's models, made through the configuration of the backbone."""
