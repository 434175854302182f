"""Every model on every data set."""
