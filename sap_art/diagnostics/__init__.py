"""What tells whether an evaluation can be trusted: comparisons of attacks, probes of the model, planted examples."""
