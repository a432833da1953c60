"""Training one set of weights for many widths: settings, step, trainer, log, distillation, statistics of norms."""
